"""What both sides compute, from the specification and on plain integers. Only hashing, AES, ChaCha20 and Poly1305 come
from libraries (hashlib, hmac, cryptography)."""

import hashlib
import hmac
import itertools

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305


def u32(value):
    return value.to_bytes(4, "little")


def u64(value):
    return value.to_bytes(8, "little")


# ---------------------------------------------------------------- hashes and keys


VERSION = 1


def tagged_digest(purpose, parts):
    """SHA-256 over the length-prefixed tag and parts."""
    tag = f"fedveil/secagg/v{VERSION}/{purpose}".encode()
    return hashlib.sha256(b"".join(u64(len(part)) + part for part in [tag, *parts])).digest()


def hkdf_sha256(salt, secret, info):
    """RFC 5869, the first 32 bytes."""
    pseudorandom_key = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(pseudorandom_key, info + b"\x01", hashlib.sha256).digest()


def derive_key(purpose, transcript, secret, parts):
    return hkdf_sha256(transcript, secret, tagged_digest(purpose, parts))


P25519 = 2**255 - 19


def montgomery_ladder(scalar, u):
    """The u-coordinate of scalar times a point with u-coordinate u on curve25519 (RFC 7748, section 5)."""
    x2, z2, x3, z3 = 1, 0, u, 1
    for bit in reversed(range(scalar.bit_length())):
        if scalar >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb = d * a, c * b
        x3, z3 = (da + cb) ** 2 % P25519, u * (da - cb) ** 2 % P25519
        e = a * a - b * b
        x2, z2 = a * a * b * b % P25519, e * (a * a + 121665 * e) % P25519
        if scalar >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return x2 * pow(z2, P25519 - 2, P25519) % P25519


def x25519(secret, public):
    scalar = int.from_bytes(secret, "little") & ~7 & (2**255 - 1) | 2**254
    scalar &= 2**255 - 1
    u = int.from_bytes(public, "little") & (2**255 - 1)
    return montgomery_ladder(scalar, u % P25519).to_bytes(32, "little")


def public_key(secret):
    return x25519(secret, (9).to_bytes(32, "little"))


def is_strong_public_key(key):
    u = int.from_bytes(key, "little")
    return u < P25519 and montgomery_ladder(8, u) != 0


def pairwise_mask_key(transcript, secret, position, their_key, their_position):
    low, high = sorted([position, their_position])
    return derive_key("pairwise mask", transcript, x25519(secret, their_key), [u64(low), u64(high)])


def self_mask_key(transcript, seed, position):
    return derive_key("self mask", transcript, seed, [u64(position)])


def box_cipher(transcript, secret, their_key, sender, recipient):
    key = derive_key("box", transcript, x25519(secret, their_key), [u64(sender), u64(recipient)])
    return ChaCha20Poly1305(key)


def seal(transcript, secret, their_key, sender, recipient, plaintext):
    cipher = box_cipher(transcript, secret, their_key, sender, recipient)
    return cipher.encrypt(bytes(12), plaintext, transcript)


def unseal(transcript, secret, their_key, sender, recipient, sealed):
    try:
        cipher = box_cipher(transcript, secret, their_key, sender, recipient)
        return cipher.decrypt(bytes(12), sealed, transcript)
    except InvalidTag:
        return None


# ---------------------------------------------------------------- streams and masks


CIPHERS = {
    "aes-256-ctr": lambda key: Cipher(algorithms.AES(key), modes.CTR(bytes(16))),
    "chacha20": lambda key: Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None),
}


def key_stream(cipher, key, length):
    return CIPHERS[cipher](key).encryptor().update(bytes(length))


def mask_vector(cipher, key, length):
    """Ring elements mod 2^32."""
    stream = key_stream(cipher, key, 4 * length)
    return [int.from_bytes(stream[4 * i : 4 * i + 4], "little") for i in range(length)]


def elements_digest(elements):
    return hashlib.sha256(b"".join(map(u32, elements))).digest()


# ---------------------------------------------------------------- Shamir sharing


L25519 = 2**252 + 27742317777372353535851937790883648493


def encode_share(limbs):
    return b"".join(limb.to_bytes(32, "little") for limb in limbs)


def decode_share(share):
    limbs = [int.from_bytes(share[:32], "little"), int.from_bytes(share[32:], "little")]
    return limbs if all(limb < L25519 for limb in limbs) else None


def split(secret, threshold, positions, stream):
    """64 bytes of the stream for each coefficient but the constant one; all of the first limb's come first."""
    wide = [int.from_bytes(stream[i : i + 64], "little") % L25519 for i in range(0, len(stream), 64)]
    assert len(wide) == 2 * (threshold - 1)
    limbs = [int.from_bytes(secret[:16], "little"), int.from_bytes(secret[16:], "little")]
    polynomials = [[limbs[0], *wide[: threshold - 1]], [limbs[1], *wide[threshold - 1 :]]]
    return [
        encode_share([sum(c * (at + 1) ** i for i, c in enumerate(p)) % L25519 for p in polynomials])
        for at in positions
    ]


def lagrange(points, values, x):
    """The value at x of the polynomial of lowest degree through the points."""
    total = 0
    for i, xi in enumerate(points):
        numerator = denominator = 1
        for j, xj in enumerate(points):
            if i != j:
                numerator = numerator * (x - xj) % L25519
                denominator = denominator * (xi - xj) % L25519
        total += values[i] * numerator * pow(denominator, -1, L25519)
    return total % L25519


def recover(positions, shares):
    limbs = [decode_share(share) for share in shares]
    points = [at + 1 for at in positions]
    values = [lagrange(points, [limb[i] for limb in limbs], 0) for i in range(2)]
    return b"".join(v.to_bytes(16, "little") for v in values) if max(values) < 2**128 else None


def correct_exhaustively(positions, shares, threshold):
    """Tries every choice of threshold shares; for few shares only."""
    limbs = [decode_share(share) for share in shares]
    points = [at + 1 for at in positions]
    for chosen in itertools.combinations(range(len(points)), threshold):
        xs = [points[i] for i in chosen]
        through = [[limbs[i][limb] for i in chosen] for limb in range(2)]
        wrong = [
            positions[i]
            for i, x in enumerate(points)
            if any(lagrange(xs, through[limb], x) != limbs[i][limb] for limb in range(2))
        ]
        if len(wrong) <= (len(points) - threshold) // 2:
            secret = recover([positions[i] for i in chosen], [shares[i] for i in chosen])
            return None if secret is None else (secret, wrong)
    return None


# ---------------------------------------------------------------- groups and neighbours


class Shuffler:
    """Fisher-Yates from the end, by 32-bit words of the ChaCha20 stream under the beacon."""

    def __init__(self, beacon):
        self.stream = CIPHERS["chacha20"](beacon).encryptor()

    def below(self, bound):
        while True:
            draw = int.from_bytes(self.stream.update(bytes(4)), "little")
            if draw >= 2**32 % bound:
                return draw % bound

    def shuffle(self, items):
        items = list(items)
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]
        return items


PROTOCOLS = {"pairwise-mask": 1, "rlwe-two-layer": 2}
PRGS = {"aes-256-ctr": 1, "chacha20": 2}


def config_digest(parameters):
    """Binds all parameters of a session."""
    numbers = [PROTOCOLS[parameters["protocol"]], PRGS[parameters["prg"]]]
    numbers += [parameters[name] for name in ["ring_bits", "length", "group_size", "degree", "threshold"]]
    numbers += [parameters[name] for name in ["min_survivors", "min_cohort", "max_cohort", "max_missing_reveals"]]
    context, authority = bytes.fromhex(parameters["context"]), bytes.fromhex(parameters["authority"])
    return tagged_digest("session", [bytes([VERSION]), context, authority, b"".join(map(u64, numbers))])


def largest_group(parameters):
    fewest = (parameters["min_cohort"] - parameters["max_missing_reveals"]) // parameters["group_size"]
    most = min(fewest * parameters["group_size"] + parameters["group_size"] - 1, parameters["max_cohort"])
    return -(-most // fewest)


def beacon_of(root, reveals_message):
    return tagged_digest("beacon", [root, reveals_message])


def group_transcript(config, root, beacon, index):
    return tagged_digest("group", [config, root, beacon, u64(index)])


def ring_orders(beacon, members, group_size):
    order = Shuffler(beacon).shuffle(members)
    groups = len(order) // group_size
    sizes = [len(order) // groups + (1 if i < len(order) % groups else 0) for i in range(groups)]
    starts = itertools.accumulate(sizes, initial=0)
    return [order[start : start + size] for start, size in zip(starts, sizes)]


def neighbours(size, degree, position):
    if size <= degree + 1:
        return [other for other in range(size) if other != position]
    offsets = [*range(-(degree // 2), 0), *range(1, degree // 2 + 1)]
    return sorted((position + offset) % size for offset in offsets)


def edges_digest(size, degree):
    """SHA-256 over the neighbours of all positions in turn, as 32-bit numbers."""
    return elements_digest(other for at in range(size) for other in neighbours(size, degree, at))


# ---------------------------------------------------------------- ring elements on the wire


def pack(elements, bits):
    total = sum(element << (bits * i) for i, element in enumerate(elements))
    return total.to_bytes((len(elements) * bits + 7) // 8, "little")
