"""Reads the transcript of a whole session as a coordinator would, and checks all that can be checked from outside."""

import hashlib
import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from lattice import N, Q, Rlwe
from primitives import (
    beacon_of,
    config_digest,
    group_transcript,
    largest_group,
    mask_vector,
    neighbours,
    pairwise_mask_key,
    public_key,
    recover,
    ring_orders,
    self_mask_key,
    tagged_digest,
)

KINDS = ["", "identity", "advertise", "roster", "reveal", "reveals", "shares", "delivery", "masked input", "survivors"]
KINDS += ["consistency", "signatures", "unmask"]


class Reader:
    def __init__(self, message, kind):
        self.rest = message
        assert self.take(2) == bytes([1, KINDS.index(kind)])

    def take(self, length):
        assert length <= len(self.rest)
        head, self.rest = self.rest[:length], self.rest[length:]
        return head

    def u32(self):
        return int.from_bytes(self.take(4), "little")

    def bitmap(self, members):
        bits = int.from_bytes(self.take((members + 7) // 8), "little")
        assert bits < 2**members
        return [at for at in range(members) if bits >> at & 1]

    def end(self):
        assert not self.rest


def verify(key, signature, digest):
    Ed25519PublicKey.from_public_bytes(key).verify(signature, digest)


class Member:
    """An entry of the roster."""

    def __init__(self, entry, config, authority):
        reader = Reader(entry, "advertise")
        certificate = reader.take(reader.u32())
        self.box_key, self.mask_key, self.nonce_commitment, self.seed_commitment = (reader.take(32) for _ in range(4))
        signature = reader.take(64)
        reader.end()
        reader = Reader(certificate, "identity")
        self.identity = reader.take(32)
        reader.take(8)
        reader.take(reader.u32())
        verify(authority, reader.take(64), tagged_digest("identity", [certificate[:-64]]))
        reader.end()
        verify(self.identity, signature, tagged_digest("advertise", [config, entry[:-64]]))
        self.id = tagged_digest("client id", [self.identity])


def check_session(path):
    session = json.loads(path.read_text())
    [parameters] = session["parameters"]
    clients = session["clients"]
    config, authority = config_digest(parameters), bytes.fromhex(parameters["authority"])

    # By kind and client; the coordinator's messages to everyone are by group.
    messages = {}
    for message in session["messages"]:
        content = bytes.fromhex(message["bytes"]) if "bytes" in message else None
        assert content is None or hashlib.sha256(content).hexdigest() == message["sha256"]
        key = (message["kind"], message["client"], message["group"])
        assert key not in messages
        messages[key] = content

    def sent(kind, client):
        return next((content for (k, c, _), content in messages.items() if (k, c) == (kind, client)), None)

    roster = messages["roster", None, None]
    reader = Reader(roster, "roster")
    members = [Member(reader.take(reader.u32()), config, authority) for _ in range(reader.u32())]
    reader.end()
    assert [member.id.hex() for member in members] == [client["id"] for client in clients]
    assert all(a.id < b.id for a, b in zip(members, members[1:]))
    root = tagged_digest("roster", [config, roster])

    reveals = messages["reveals", None, None]
    reader, revealed = Reader(reveals, "reveals"), []
    for _ in range(reader.u32()):
        index, nonce = reader.u32(), reader.take(32)
        assert tagged_digest("nonce", [config, members[index].id, nonce]) == members[index].nonce_commitment
        revealed.append(index)
    reader.end()
    beacon = beacon_of(root, reveals)
    orders = ring_orders(beacon, revealed, parameters["group_size"])
    assert orders == [group["members"] for group in session["groups"]]

    for index, group in enumerate(session["groups"]):
        transcript = group_transcript(config, root, beacon, index)
        assert transcript.hex() == group["transcript"]
        check_group(parameters, config, [members[i] for i in orders[index]], transcript, group, index, messages, sent)
        total = [0] * parameters["length"]
        for position in group["survivors"]:
            values = clients[orders[index][position]]["input"]
            total = [(a + b) % 2 ** parameters["ring_bits"] for a, b in zip(total, values)]
        assert group["sum"] == total


def check_group(parameters, config, members, transcript, group, group_index, messages, sent):
    size, degree = len(members), parameters["degree"]
    rlwe = None
    masked_length, masked_bits, body_length = parameters["length"], parameters["ring_bits"], 0
    if parameters["protocol"] == "rlwe-two-layer":
        rlwe = Rlwe(parameters["ring_bits"], parameters["length"], largest_group(parameters))
        masked_length, masked_bits, body_length = N, rlwe.masked_bits, rlwe.body

    survivors = messages["survivors", None, group_index]
    reader = Reader(survivors, "survivors")
    sharers, submitters = reader.bitmap(size), reader.bitmap(size)
    reader.end()
    assert submitters == group["survivors"] and set(submitters) <= set(sharers)

    masked, body = [0] * masked_length, [0] * body_length
    for position in submitters:
        reader = Reader(sent("masked input", group["members"][position]), "masked input")
        body = [(total + int.from_bytes(reader.take(8), "little")) % Q for total in body]
        packed = int.from_bytes(reader.rest, "little")
        assert len(reader.rest) == (masked_length * masked_bits + 7) // 8 and packed < 2 ** (masked_length * masked_bits)
        masked = [total + (packed >> masked_bits * i) % 2**masked_bits for i, total in enumerate(masked)]
        consistency = sent("consistency", group["members"][position])
        if consistency:
            reader = Reader(consistency, "consistency")
            verify(members[position].identity, reader.take(64), tagged_digest("survivors", [transcript, survivors]))
            reader.end()

    # The shares of each owner's secret, from those of its neighbours that answered.
    shares = {owner: {} for owner in sharers}
    for holder in range(size):
        answer = sent("unmask", group["members"][holder])
        if answer:
            reader = Reader(answer, "unmask")
            for owner in neighbours(size, degree, holder):
                if owner in sharers:
                    shares[owner][holder] = reader.take(64)
            reader.end()

    def remove(key, sign):
        nonlocal masked
        mask = mask_vector(parameters["prg"], key, masked_length)
        masked = [total - sign * m for total, m in zip(masked, mask)]

    for owner, held in shares.items():
        holders = sorted(held)
        assert len(holders) >= parameters["threshold"]
        first, last = holders[: parameters["threshold"]], holders[-parameters["threshold"] :]
        secret = recover(first, [held[at] for at in first])
        assert secret == recover(last, [held[at] for at in last])
        if owner in submitters:
            assert tagged_digest("seed", [config, members[owner].id, secret]) == members[owner].seed_commitment
            remove(self_mask_key(transcript, secret, owner), 1)
        else:
            assert public_key(secret) == members[owner].mask_key
            for other in neighbours(size, degree, owner):
                if other in submitters:
                    key = pairwise_mask_key(transcript, secret, owner, members[other].mask_key, other)
                    remove(key, 1 if other < owner else -1)

    masked = [total % 2**masked_bits for total in masked]
    if rlwe:
        half = 2 ** (masked_bits - 1)
        masked = rlwe.decode(transcript, [(k + half) % 2**masked_bits - half for k in masked], body)
    assert masked == group["sum"]
