"""The RLWE layer: its ring, its noise, and what is encrypted how."""

import hashlib
import math
from decimal import Decimal, localcontext
from fractions import Fraction

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from primitives import derive_key, key_stream, tagged_digest, u32, u64


# ---------------------------------------------------------------- the ring of the ciphertexts


Q = 2**64 - 2**32 + 1
N = 4096
PSI = pow(7, (Q - 1) // (2 * N), Q)


def words_digest(words):
    return hashlib.sha256(b"".join(map(u64, words))).digest()


def words_of(key, count):
    """Words of the ChaCha20 stream under the key, of 64 bits each."""
    stream = key_stream("chacha20", key, 8 * count)
    return [int.from_bytes(stream[8 * i : 8 * i + 8], "little") for i in range(count)]


def negacyclic_product(a, b):
    """In Z_q[X]/(X^N + 1), by one product of integers in which coefficients are 160 bits apart."""

    def integer(coefficients):
        return int.from_bytes(b"".join((c % Q).to_bytes(20, "little") for c in coefficients), "little")

    product = (integer(a) * integer(b)).to_bytes(40 * N, "little")
    plain = [int.from_bytes(product[20 * i : 20 * i + 20], "little") for i in range(2 * N)]
    return [(low - high) % Q for low, high in zip(plain[:N], plain[N:])]


def evaluate_at_powers(coefficients, root):
    """Values at root^0, root^1, ...; root has the order len(coefficients), a power of two."""
    if len(coefficients) == 1:
        return coefficients
    even = evaluate_at_powers(coefficients[::2], root * root % Q)
    odd = evaluate_at_powers(coefficients[1::2], root * root % Q)
    low, high, power = [], [], 1
    for e, o in zip(even, odd):
        low.append((e + power * o) % Q)
        high.append((e - power * o) % Q)
        power = power * root % Q
    return low + high


def reversed_bits(index):
    return int(f"{index:012b}"[::-1], 2)


def transform(coefficients):
    """Entry i is the value at psi^(2 rev(i) + 1), where rev reverses twelve bits."""
    twisted = [c * pow(PSI, i, Q) % Q for i, c in enumerate(coefficients)]
    values = evaluate_at_powers(twisted, PSI * PSI % Q)
    return [values[reversed_bits(i)] for i in range(N)]


def inverse_transform(values):
    ordered = [values[reversed_bits(i)] % Q for i in range(N)]
    twisted = evaluate_at_powers(ordered, pow(PSI, -2, Q))
    return [c * pow(N * pow(PSI, i, Q), -1, Q) % Q for i, c in enumerate(twisted)]


# ---------------------------------------------------------------- RLWE encryption


KEY_VARIANCE, KEY_TAIL = Fraction(81, 4), 55
ERROR_VARIANCE, ERROR_TAIL = Fraction(81, 2), 78


def gaussian_thresholds(variance, tail):
    """P(|x| <= k) in units of 2^-128, rounded down, for the discrete Gaussian cut to [-tail, tail]."""
    with localcontext() as context:
        context.prec = 100
        scale = Decimal(variance.denominator) / Decimal(2 * variance.numerator)
        weights = [(-(k * k) * scale).exp() * (1 if k == 0 else 2) for k in range(tail + 1)]
        total = sum(weights)
        return [int(sum(weights[: k + 1]) / total * 2**128) for k in range(tail)]


def gaussian_samples(variance, tail, key, count):
    thresholds = gaussian_thresholds(variance, tail)
    first_bits = {threshold >> 113 for threshold in thresholds}
    first = key_stream("chacha20", key, 2 * count)
    nonce = u32(1) + bytes(8)
    second = Cipher(algorithms.ChaCha20(key, u32(0) + nonce), mode=None).encryptor()
    samples = []
    for i in range(count):
        word = int.from_bytes(first[2 * i : 2 * i + 2], "little")
        fraction = (word >> 1) << 113
        if word >> 1 in first_bits:
            fraction += int.from_bytes(second.update(bytes(16)), "little") >> 15
        magnitude = sum(1 for threshold in thresholds if threshold <= fraction)
        samples.append(-magnitude if word & 1 else magnitude)
    return samples


class Rlwe:
    """Parameters for vectors of `length` residues mod 2^ring_bits, sums of at most `summands` of them."""

    def __init__(self, ring_bits, length, summands):
        self.ring_bits, self.length = ring_bits, length
        for self.slots in reversed(range(1, 64 // ring_bits + 1)):
            self.delta = Q // 2 ** (ring_bits * self.slots)
            self.body = -(-length // self.slots)
            # log2 of 2 L exp(-delta^2 / (324 n))
            if 1 + math.log2(self.body) - self.delta**2 / (324 * summands) / math.log(2) <= -40:
                break
        self.masked_bits = max(8, (summands * KEY_TAIL).bit_length() + 1)

    def centred(self, residue):
        half = 2 ** (self.ring_bits - 1)
        return (residue + half) % (2 * half) - half

    def messages(self, values):
        """Signed coefficients, each of `slots` balanced digits; the last one may have fewer."""
        for start in range(0, self.length, self.slots):
            digits = values[start : start + self.slots]
            yield sum(self.centred(v) * 2 ** (self.ring_bits * k) for k, v in enumerate(digits))

    def encode(self, transcript, values, secret):
        key = gaussian_samples(KEY_VARIANCE, KEY_TAIL, derive_key("rlwe key", transcript, secret, []), N)
        error_key = derive_key("rlwe errors", transcript, secret, [])
        errors = gaussian_samples(ERROR_VARIANCE, ERROR_TAIL, error_key, self.body)
        products = self.products(transcript, key)
        body = [(p + e + self.delta * m) % Q for p, e, m in zip(products, errors, self.messages(values))]
        return key, errors, body

    def products(self, transcript, key):
        """Coefficients of a_0 s, a_1 s, ...; the a_j are given by their values, words of one stream below q."""
        blocks = -(-self.body // N)
        uniform = [w for w in words_of(tagged_digest("rlwe public polynomials", [transcript]), blocks * N + 64) if w < Q]
        for block in range(blocks):
            yield from negacyclic_product(inverse_transform(uniform[block * N : block * N + N]), key)

    def decode(self, transcript, key, body):
        smallest = -(2 ** (self.ring_bits - 1)) * sum(2 ** (self.ring_bits * k) for k in range(self.slots))
        values = []
        for product, sum_of_bodies in zip(self.products(transcript, key), body):
            rounded_up = (sum_of_bodies - product + self.delta // 2 - self.delta * smallest) % Q
            message = rounded_up // self.delta + smallest
            for _ in range(min(self.slots, self.length - len(values))):
                digit = self.centred(message)
                values.append(digit % 2**self.ring_bits)
                message = (message - digit) >> self.ring_bits
        return values
