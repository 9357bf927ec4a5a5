#!/usr/bin/env python3
"""Known answers for secure aggregation, computed apart from the implementation.

Arithmetic is done on Python's integers in the plainest way that gives the answer: polynomials are evaluated term by
term, negacyclic products come from one product of big integers, what error correction must find is known because the
errors were put there, or is searched for exhaustively. Only hashing, AES, ChaCha20 and Poly1305 are taken from
libraries (hashlib, hmac, cryptography).

    python3 reference.py            writes the vectors beside this file
    python3 reference.py --check    fails where a vector differs from what would be written

Either way it reads the sessions that the implementation wrote, and fails where they are not what they should be.
"""

import hashlib
import itertools
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lattice import (
    N,
    PSI,
    Q,
    Rlwe,
    inverse_transform,
    negacyclic_product,
    reversed_bits,
    transform,
    words_digest,
    words_of,
)
from primitives import (
    CIPHERS,
    L25519,
    P25519,
    beacon_of,
    config_digest,
    correct_exhaustively,
    decode_share,
    derive_key,
    edges_digest,
    elements_digest,
    encode_share,
    group_transcript,
    is_strong_public_key,
    key_stream,
    largest_group,
    mask_vector,
    neighbours,
    pack,
    pairwise_mask_key,
    public_key,
    recover,
    ring_orders,
    seal,
    self_mask_key,
    split,
    tagged_digest,
    u64,
    unseal,
    x25519,
)
from sessions import check_session

HERE = Path(__file__).resolve().parent


def some_bytes(label, length):
    """Arbitrary but reproducible input."""
    return hashlib.shake_256(label.encode()).digest(length)


def some_number(label, below):
    return int.from_bytes(some_bytes(label, 64), "little") % below


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


def some_parameters(**parameters):
    authority = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32).public_key().public_bytes_raw()
    common = {"context": some_bytes("context", 32).hex(), "authority": authority.hex()}
    return {**common, "protocol": "pairwise-mask", "prg": "aes-256-ctr", "ring_bits": 20, "length": 10, **parameters}


def accepted(parameters):
    """Whether every group that can form has a graph, and a threshold that is safe on it and can be reached."""
    degree, threshold, largest = parameters["degree"], parameters["threshold"], largest_group(parameters)
    fewest, most = min(degree, parameters["group_size"] - 1), min(degree, largest - 1)
    exists = degree % 2 == 0 or degree >= largest - 1
    ordered = threshold < parameters["min_survivors"] <= parameters["group_size"]
    return exists and ordered and threshold <= fewest and 2 * threshold > most


def graph_vectors():
    # Cohorts of 11 to 40 in groups of at least 10; the largest group has 19 members.
    choices = []
    for degree, threshold, min_survivors in [
        (8, 5, 6), (8, 5, 5), (8, 4, 6), (8, 8, 9), (8, 9, 10), (7, 5, 6), (9, 5, 6), (18, 9, 10), (18, 10, 10), (30, 10, 11),
    ]:  # fmt: skip
        given = some_parameters(
            group_size=10,
            degree=degree,
            threshold=threshold,
            min_survivors=min_survivors,
            min_cohort=11,
            max_cohort=40,
            max_missing_reveals=1,
        )
        choices.append({"parameters": given, "accepted": accepted(given)})
    assert {case["accepted"] for case in choices} == {True, False}

    groups = []
    for cohort, missing, group_size, degree, threshold in [
        (3, [], 3, 2, 2),
        (11, [4], 5, 4, 3),
        (20, [0, 7, 19], 6, 4, 3),
        (64, [], 16, 8, 6),
        (1000, [3], 100, 32, 22),
    ]:
        parameters = some_parameters(
            prg=["aes-256-ctr", "chacha20"][cohort % 2],
            group_size=group_size,
            degree=degree,
            threshold=threshold,
            min_survivors=threshold + 1,
            min_cohort=cohort,
            max_cohort=cohort,
            max_missing_reveals=len(missing),
        )
        root, message = some_bytes(f"graph root {cohort}", 32), some_bytes(f"graph message {cohort}", 100)
        beacon = beacon_of(root, message)
        orders = ring_orders(beacon, [index for index in range(cohort) if index not in missing], group_size)
        config = config_digest(parameters)
        groups.append(
            {
                "parameters": parameters,
                "root": root,
                "message": message,
                "missing": missing,
                "sizes": [len(order) for order in orders],
                "members": orders if cohort <= 64 else None,
                "members_digest": elements_digest(itertools.chain(*orders)),
                "transcripts": [group_transcript(config, root, beacon, index) for index in range(len(orders))],
            }
        )

    graphs = []
    for size, degree in [(3, 2), (4, 9), (7, 6), (8, 6), (7, 4), (8, 4), (33, 32), (34, 32), (100, 32), (1000, 96)]:
        # An edge is one for both of its ends.
        assert all(at in neighbours(size, degree, other) for at in range(size) for other in neighbours(size, degree, at))
        graphs.append(
            {
                "size": size,
                "degree": degree,
                "first": neighbours(size, degree, 0),
                "last": neighbours(size, degree, size - 1),
                "digest": edges_digest(size, degree),
            }
        )
    return {"parameters": choices, "groups": groups, "graphs": graphs}


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


def dense(terms):
    coefficients = [0] * N
    for exponent, coefficient in terms:
        coefficients[exponent] = coefficient
    return coefficients


def sparse_product(left, right):
    """Term by term, X^N being -1."""
    product = {}
    for i, a in left:
        for j, b in right:
            sign = -1 if i + j >= N else 1
            product[(i + j) % N] = (product.get((i + j) % N, 0) + sign * a * b) % Q
    return sorted([exponent, c] for exponent, c in product.items() if c)


def ntt_vectors():
    seeds = [some_bytes(f"ntt {i}", 32) for i in range(3)]
    transforms = []
    for seed in seeds:
        coefficients = words_of(seed, N)
        values = transform(coefficients)
        assert inverse_transform(values) == [c % Q for c in coefficients]
        for i in [0, 1, 2048, 4095]:
            point = pow(PSI, 2 * reversed_bits(i) + 1, Q)
            assert values[i] == sum(c * pow(point, k, Q) for k, c in enumerate(coefficients)) % Q
        transforms.append({"seed": seed, "first": values[:4], "digest": words_digest(values)})

    products = []
    for left, right in [(0, 1), (1, 2), (2, 2)]:
        product = negacyclic_product(words_of(seeds[left], N), words_of(seeds[right], N))
        products.append(
            {"left": seeds[left], "right": seeds[right], "first": product[:4], "digest": words_digest(product)}
        )

    sparse = []
    for left, right in [
        ([(0, 1)], [(0, 1)]),
        ([(1, 1)], [(4095, 1)]),
        ([(4095, 1)], [(4095, 1)]),
        ([(0, Q - 1), (2048, 1)], [(0, 1), (2048, 1)]),
        ([(3, 2**63), (4000, Q - 2)], [(5, 2**32), (97, 1), (4095, 2**48)]),
        # Residues that are not canonical are taken for what they are congruent to.
        ([(0, Q)], [(7, 5)]),
        ([(1, 2**64 - 1)], [(4095, 2**64 - 1)]),
    ]:
        product = sparse_product(left, right)
        assert dense(product) == negacyclic_product(dense(left), dense(right))
        sparse.append({"left": left, "right": right, "product": product})
    return {"transforms": transforms, "products": products, "sparse": sparse}


def rlwe_values(label, ring_bits, length, largest):
    """Residues of numbers from -largest to largest - 1."""
    stream = key_stream("chacha20", some_bytes(label, 32), 4 * length)
    words = [int.from_bytes(stream[4 * i : 4 * i + 4], "little") for i in range(length)]
    return [(word % (2 * largest) - largest) % 2**ring_bits for word in words]


def rlwe_vectors():
    transcript = some_bytes("rlwe transcript", 32)
    parameters = []
    for ring_bits, length, summands in [
        (8, 1, 1), (8, 2**20, 100), (13, 2**20, 1000), (16, 2**20, 1000), (17, 4096, 10), (20, 2**20, 100),
        (24, 100_000, 1000), (25, 2**20, 50), (26, 2**20, 1000), (26, 2**20, 1500), (27, 4096, 2), (32, 2**28, 65_536),
    ]:  # fmt: skip
        rlwe = Rlwe(ring_bits, length, summands)
        parameters.append(
            {
                "ring_bits": ring_bits,
                "length": length,
                "summands": summands,
                "slots": rlwe.slots,
                "masked_bits": rlwe.masked_bits,
                "body": rlwe.body,
            }
        )

    encodings = []
    for ring_bits, length, summands in [(26, 5, 1000), (16, 13_000, 100), (8, 16, 3), (32, 3, 10)]:
        rlwe, secret = Rlwe(ring_bits, length, summands), some_bytes(f"rlwe secret {ring_bits}", 32)
        seed = f"rlwe values {ring_bits}"
        values = rlwe_values(seed, ring_bits, length, 2 ** (ring_bits - 1))
        key, errors, body = rlwe.encode(transcript, values, secret)
        assert rlwe.decode(transcript, key, body) == values
        encodings.append(
            {
                "ring_bits": ring_bits,
                "summands": summands,
                "transcript": transcript,
                "secret": secret,
                "values": values if length < 100 else None,
                "seed": some_bytes(seed, 32),
                "length": length,
                "key": key[:8],
                "key_digest": elements_digest(k % 2**32 for k in key),
                "body": body[:4],
                "body_digest": words_digest(body),
            }
        )

    sums = []
    for ring_bits, length, summands in [(26, 7, 5), (20, 9, 4), (8, 10, 3), (32, 3, 4), (16, 14, 3)]:
        rlwe = Rlwe(ring_bits, length, summands)
        parties = []
        total_key, total_body, total = [0] * N, [0] * rlwe.body, [0] * length
        for party in range(summands):
            secret = some_bytes(f"rlwe secret {ring_bits} {party}", 32)
            values = rlwe_values(f"rlwe values {ring_bits} {party}", ring_bits, length, 2 ** (ring_bits - 1) // summands)
            key, _, body = rlwe.encode(transcript, values, secret)
            total_key = [a + b for a, b in zip(total_key, key)]
            total_body = [(a + b) % Q for a, b in zip(total_body, body)]
            total = [(a + b) % 2**ring_bits for a, b in zip(total, values)]
            parties.append({"secret": secret, "values": values})
        assert rlwe.decode(transcript, total_key, total_body) == total
        sums.append(
            {
                "ring_bits": ring_bits,
                "length": length,
                "summands": summands,
                "transcript": transcript,
                "parties": parties,
                "body": total_body,
                "sum": total,
            }
        )

    # Under a zero key a body is the message and noise; `wanted` is what was put in, `values` what must be read.
    readings = []
    for ring_bits in [8, 13, 20, 26, 32]:
        rlwe = Rlwe(ring_bits, 64 // ring_bits, 8)
        half, top = 2 ** (ring_bits - 1), 2**ring_bits - 1
        rlwe = Rlwe(ring_bits, rlwe.slots, 8)
        below, above = -(rlwe.delta // 2), rlwe.delta - rlwe.delta // 2 - 1
        for residue in [0, 1, half - 1, half, top]:
            for noise in [below - 1, below, 0, above, above + 1]:
                wanted = [residue] * rlwe.slots
                [message] = rlwe.messages(wanted)
                # Beyond the smallest message lies what q has over a multiple of delta.
                if noise < below and residue == half:
                    continue
                body = [(rlwe.delta * message + noise) % Q]
                values = rlwe.decode(transcript, [0] * N, body)
                assert (values == wanted) == (below <= noise <= above)
                readings.append(
                    {"ring_bits": ring_bits, "slots": rlwe.slots, "summands": 8, "body": body, "wanted": wanted, "values": values}
                )
    return {"parameters": parameters, "encodings": encodings, "sums": sums, "readings": readings}


FILES = {
    "kdf.json": kdf_vectors,
    "prg.json": prg_vectors,
    "shamir.json": shamir_vectors,
    "graph.json": graph_vectors,
    "packing.json": packing_vectors,
    "ntt.json": ntt_vectors,
    "rlwe.json": rlwe_vectors,
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
    for path in sorted(HERE.glob("session-*.json")):
        check_session(path)
    if differing:
        sys.exit(f"differ from the reference: {', '.join(differing)}")


if __name__ == "__main__":
    main()
