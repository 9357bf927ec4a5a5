#!/usr/bin/env python3
"""Known answers for secure aggregation, computed apart from the implementation.

Arithmetic is done on Python's integers in the plainest way that gives the answer: polynomials are evaluated term by
term, negacyclic products come from one product of big integers, what error correction must find is known because the
errors were put there, or is searched for exhaustively. Only hashing, AES, ChaCha20 and Poly1305 are taken from
libraries (hashlib, hmac, cryptography).

    python3 reference.py            writes the vectors beside this file
    python3 reference.py --check    fails where a vector differs from what would be written
"""

import hashlib
import hmac
import itertools
import json
import sys
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

HERE = Path(__file__).resolve().parent


def some_bytes(label, length):
    """Arbitrary but reproducible input."""
    return hashlib.shake_256(label.encode()).digest(length)


def some_number(label, below):
    return int.from_bytes(some_bytes(label, 64), "little") % below


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


def kdf_vectors():
    transcript, other = some_bytes("kdf transcript", 32), some_bytes("kdf other transcript", 32)
    alice, bob = some_bytes("kdf alice", 32), some_bytes("kdf bob", 32)
    assert x25519(alice, public_key(bob)) == x25519(bob, public_key(alice))
    digests = [
        ("roster", []),
        ("roster", [b""]),
        ("roster", [b"", b""]),
        ("beacon", [b"ab", b"c"]),
        ("beacon", [b"a", b"bc"]),
        ("beacon", [b"abc"]),
        ("reveal", [b"ab", b"c"]),
        ("group", [some_bytes("kdf part", 1000), u64(2**64 - 1)]),
    ]
    keys = [
        ("pairwise mask", transcript, alice, [u64(3), u64(5)]),
        ("pairwise mask", transcript, alice, [u64(5), u64(3)]),
        ("pairwise mask", other, alice, [u64(3), u64(5)]),
        ("pairwise mask", transcript, bob, [u64(3), u64(5)]),
        ("self mask", transcript, alice, [u64(3), u64(5)]),
        ("self mask", transcript, alice, [u64(3)]),
        ("box", bytes(32), bytes(32), []),
    ]
    pairs = [
        (transcript, alice, 3, public_key(bob), 5),
        (transcript, bob, 5, public_key(alice), 3),
        (transcript, alice, 5, public_key(bob), 3),
        (transcript, alice, 300, public_key(bob), 70_000),
        (other, alice, 3, public_key(bob), 5),
    ]
    sealed = seal(transcript, alice, public_key(bob), 3, 5, some_bytes("kdf plaintext", 128))
    empty = seal(transcript, alice, public_key(bob), 3, 5, b"")
    flipped = bytes([sealed[0] ^ 1]) + sealed[1:]
    boxes = [
        (transcript, bob, public_key(alice), 3, 5, sealed),
        (transcript, bob, public_key(alice), 3, 5, empty),
        (transcript, bob, public_key(alice), 5, 3, sealed),
        (transcript, bob, public_key(alice), 3, 6, sealed),
        (other, bob, public_key(alice), 3, 5, sealed),
        (transcript, alice, public_key(alice), 3, 5, sealed),
        (transcript, bob, public_key(alice), 3, 5, flipped),
        (transcript, bob, public_key(alice), 3, 5, sealed[:-1]),
        (transcript, bob, public_key(alice), 3, 5, sealed + b"\0"),
        (transcript, bob, public_key(alice), 3, 5, empty[:15]),
    ]
    # u-coordinates of the points whose order divides 8, on the curve and its twist, and other encodings of small ones.
    order_eight = 325606250916557431795983626356110631294008115727848805560023387167927233504
    twin = 39382357235489614581723060781553021112529911719440698176882885853963445705823
    keys_given = [0, 1, 9, order_eight, twin, P25519 - 1, P25519, P25519 + 1, P25519 + 9, 2**255 - 1]
    keys_given += [int.from_bytes(public_key(alice), "little"), 2**255 + 9]
    public_keys = [u.to_bytes(32, "little") for u in keys_given]
    return {
        "digests": [
            {"purpose": purpose, "parts": parts, "digest": tagged_digest(purpose, parts)}
            for purpose, parts in digests
        ],
        "keys": [
            {"purpose": p, "transcript": t, "secret": s, "parts": parts, "key": derive_key(p, t, s, parts)}
            for p, t, s, parts in keys
        ],
        "pairwise_mask_keys": [
            {
                "transcript": t,
                "secret": s,
                "position": p,
                "their_key": key,
                "their_position": q,
                "key": pairwise_mask_key(t, s, p, key, q),
            }
            for t, s, p, key, q in pairs
        ],
        "self_mask_keys": [
            {"transcript": t, "seed": alice, "position": p, "key": self_mask_key(t, alice, p)}
            for t, p in [(transcript, 0), (transcript, 65_535), (other, 0)]
        ],
        "boxes": [
            {
                "transcript": t,
                "secret": s,
                "their_key": key,
                "sender": sender,
                "recipient": recipient,
                "sealed": box,
                "plaintext": unseal(t, s, key, sender, recipient, box),
            }
            for t, s, key, sender, recipient, box in boxes
        ],
        "public_keys": [{"key": key, "strong": is_strong_public_key(key)} for key in public_keys],
    }


# ---------------------------------------------------------------- mask expansion

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


def prg_vectors():
    key = some_bytes("prg key", 32)
    seed_of_32_bits = key[:4] + bytes(28)
    cases = []
    for cipher in CIPHERS:
        for used, length, bits in [(bytes(32), 4, 32), (key, 1, 8), (key, 1025, 20), (key, 5000, 32), (seed_of_32_bits, 4, 32)]:
            mask = mask_vector(cipher, used, length)
            values = [(i * 0x9E3779B1 % 2**32) >> (32 - bits) for i in range(length)]
            cases.append(
                {
                    "cipher": cipher,
                    "key": used,
                    "bits": bits,
                    "length": length,
                    "first": mask[:4],
                    "mask": elements_digest(m % 2**bits for m in mask),
                    "first_values": values[:4],
                    "plus": elements_digest((v + m) % 2**bits for v, m in zip(values, mask)),
                    "minus": elements_digest((v - m) % 2**bits for v, m in zip(values, mask)),
                }
            )
    return {"masks": cases}


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


def altered(share, limbs):
    values = decode_share(share)
    return encode_share([(v + some_number("alter", L25519)) % L25519 if i in limbs else v for i, v in enumerate(values)])


def shamir_vectors():
    splits = []
    for label, threshold, positions in [
        ("of one", 1, [0]),
        ("of three", 2, [0, 1, 2]),
        ("largest", 5, [0, 1, 2, 3, 5, 6]),
        ("ring", 17, [0, 1, 2, 7, 8, 9, 10, 65_533, 65_534, 65_535, *range(100, 110)]),
    ]:
        secret = b"\xff" * 32 if label == "largest" else some_bytes(f"shamir {label}", 32)
        stream = some_bytes(f"shamir stream {label}", 128 * (threshold - 1))
        shares = split(secret, threshold, positions, stream)
        assert recover(positions[-threshold:], shares[-threshold:]) == secret
        splits.append(
            {"secret": secret, "threshold": threshold, "positions": positions, "stream": stream, "shares": shares}
        )

    recoveries = []

    def add_recovery(positions, shares):
        recoveries.append({"positions": positions, "shares": shares, "secret": recover(positions, shares)})

    largest = splits[2]
    for chosen in [[0, 1, 2, 3, 4], [5, 3, 4, 0, 2], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3]]:
        add_recovery([largest["positions"][i] for i in chosen], [largest["shares"][i] for i in chosen])
    # A limb of 2^128, one over the largest.
    add_recovery([3, 9], [encode_share([2**128, 7])] * 2)
    add_recovery([3, 9], [encode_share([2**128 - 1, 7])] * 2)

    corrections = []

    def add_correction(positions, shares, threshold, found):
        corrections.append(
            {
                "positions": positions,
                "threshold": threshold,
                "shares": shares,
                "secret": found and found[0],
                "wrong": found and found[1],
            }
        )

    # Nine shares, threshold 4: two wrong ones are corrected, three are not, whichever limb is wrong.
    secret, positions = some_bytes("shamir corrected", 32), [0, 2, 3, 5, 8, 13, 21, 34, 55]
    shares = split(secret, 4, positions, some_bytes("shamir corrected stream", 384))
    for wrong in [{}, {3: [0]}, {0: [0], 8: [1]}, {1: [0, 1], 2: [0, 1]}, {0: [0], 1: [0], 2: [1]}, {0: [0], 1: [1], 7: [0, 1]}]:
        given = [altered(share, wrong.get(i, [])) for i, share in enumerate(shares)]
        found = correct_exhaustively(positions, given, 4)
        assert found == ((secret, [positions[i] for i in sorted(wrong)]) if len(wrong) <= 2 else None)
        add_correction(positions, given, 4, found)
    # With threshold + 1 shares nothing can be corrected; with fewer than the threshold there is no secret.
    given = [altered(shares[0], [0]), *shares[1:5]]
    add_correction(positions[:5], given, 4, correct_exhaustively(positions[:5], given, 4))
    add_correction(positions[:3], shares[:3], 4, None)
    # Consistent shares of limbs that are over 16 bytes.
    given = [encode_share([2**128, 7])] * 4 + [encode_share([5, 7])]
    add_correction([0, 1, 2, 3, 4], given, 1, correct_exhaustively([0, 1, 2, 3, 4], given, 1))
    # As for a member of a group of a thousand: 96 neighbours, threshold 67, 14 wrong shares. Right by construction.
    secret, positions = some_bytes("shamir neighbours", 32), [*range(40), *range(944, 1000)]
    shares = split(secret, 67, positions, some_bytes("shamir neighbours stream", 128 * 66))
    wrong = sorted(some_number(f"shamir wrong {i}", 6) + 6 * i for i in range(14))
    given = [altered(share, [i % 2] if i in wrong else []) for i, share in enumerate(shares)]
    add_correction(positions, given, 67, (secret, [positions[i] for i in wrong]))

    top = L25519 - 1
    encodings = [(0, 0), (top, top), (L25519, 0), (0, L25519), (L25519 + 1, 1), (2**255, 0), (0, 2**256 - 1), (1 + 2**255, 1)]
    return {
        "splits": splits,
        "recoveries": recoveries,
        "corrections": corrections,
        "encodings": [
            {"share": encode_share(limbs), "accepted": decode_share(encode_share(limbs)) is not None}
            for limbs in encodings
        ],
    }


# ---------------------------------------------------------------- ring elements on the wire


def pack(elements, bits):
    total = sum(element << (bits * i) for i, element in enumerate(elements))
    return total.to_bytes((len(elements) * bits + 7) // 8, "little")


def packing_vectors():
    good, bad = [], []
    for bits in range(8, 33):
        for length in [1, 5]:
            elements = [some_number(f"packing {bits} {length} {i}", 2**bits) for i in range(length)]
            elements[-1] = 2**bits - 1
            packed = pack(elements, bits)
            good.append({"bits": bits, "elements": elements, "packed": packed})
            padding = 8 * len(packed) - bits * length
            if padding:
                for bit in sorted({8 - padding, 7}):
                    changed = packed[:-1] + bytes([packed[-1] | 1 << bit])
                    bad.append({"bits": bits, "length": length, "packed": changed, "error": "padding"})
    good.append({"bits": 12, "elements": [], "packed": b""})
    bad.append({"bits": 12, "length": 2, "packed": bytes(2), "error": "truncated"})
    bad.append({"bits": 12, "length": 2, "packed": b"", "error": "truncated"})
    bad.append({"bits": 12, "length": 2, "packed": bytes(4), "error": "trailing"})
    bad.append({"bits": 32, "length": 0, "packed": bytes(1), "error": "trailing"})
    return {"good": good, "bad": bad}


# ---------------------------------------------------------------- files

FILES = {
    "kdf.json": kdf_vectors,
    "prg.json": prg_vectors,
    "shamir.json": shamir_vectors,
    "packing.json": packing_vectors,
}


def json_of(value):
    """One case a line, bytes in hexadecimal."""

    def plain(value):
        if isinstance(value, bytes):
            return value.hex()
        if isinstance(value, dict):
            return {key: plain(entry) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(entry) for entry in value]
        return value

    def cases(entries):
        return ",\n".join("    " + json.dumps(plain(entry)) for entry in entries)

    sections = ",\n".join(f'  "{name}": [\n{cases(entries)}\n  ]' for name, entries in value.items())
    return f"{{\n{sections}\n}}\n"


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    differing = []
    for name, vectors in FILES.items():
        text, path = json_of(vectors()), HERE / name
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            differing.append(name)
    if differing:
        sys.exit(f"differ from the reference: {', '.join(differing)}")


if __name__ == "__main__":
    main()
