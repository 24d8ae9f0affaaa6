"""The named checks of consumer groups, written once for every client that Python can drive.

A client's file adapts its library to `Client` here, which is `suite.Client` and what groups need, and hands `Suite` to
`suite.main`. Members are stepped in turn, so that a check sees each of them between two steps; only the member that
crashes is a process of its own. The Go, Java and JavaScript programs do the same checks.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import suite
from suite import NotAvailable, Wrong, batch, equal, same_records

# Longer than any check of what happens without a timeout; the shortest that Kafka allows; what the broker's own is set
# to for the new protocol, where members have no say (`xtask/src/compat/clients.rs`).
LONG_SESSION = 30
SHORT_SESSION = 6
PLACES = 4  # partitions of a group's topic
SOON = 5  # seconds for what may not wait for a session to time out
REFRESH = 0.5  # seconds after which members look for new partitions
QUIET = 0.2  # seconds in which a record too many would come


class Membership(NamedTuple):
    """What a member is made with."""

    group: str
    topics: list
    protocol: str = "classic"
    session: int = LONG_SESSION
    cooperative: bool = False
    instance: str | None = None
    pattern: str | None = None  # instead of topics
    client_id: str = "compat"


class Member:
    """What a client's file implements. It commits nothing by itself."""

    def __init__(self):
        self.places = set()  # (topic, partition) that it holds
        self.lost = []  # sets of places that were taken from it, in order
        self.gained = 0  # how many times it was given places, which may be none
        self.got = []  # (place, offset, Record)

    # What a library calls when it rebalances.

    def gain(self, places):
        self.gained += 1
        self.places = self.places | set(places)

    def lose(self, places):
        lost = set(places)
        self.lost.append(lost)
        self.places = self.places - lost

    def positions(self):
        """{place: the offset after the last record got}"""
        return {place: offset + 1 for place, offset, _ in self.got}

    def step(self):
        """Waits for at most 50 ms for what comes, and takes it."""
        raise NotImplementedError

    def commit(self, offsets):
        """Commits {place: (offset, metadata)}, and returns when that is answered."""
        raise NotImplementedError

    def leave(self):
        """Closes the member as its library does it: a static one does not leave."""
        raise NotImplementedError


class Client(suite.Client):
    # What the library cannot do, and why.
    no_cooperative = None
    no_static = None
    no_consumer_protocol = None
    no_describe = None
    tells_rebalances = True
    tells_commits = True
    metadata_limit = 4096  # characters, of the broker

    def member(self, membership):
        raise NotImplementedError

    def groups(self):
        """{group: its state, or None if the client does not tell}"""
        raise NotImplementedError

    def describe_group(self, group):
        """(state, {client id: set of places}); the state of an unknown group is Dead."""
        raise NotImplementedError

    def delete_group(self, group):
        raise NotImplementedError

    def committed(self, group, place):
        """(offset, metadata), or None"""
        raise NotImplementedError

    def set_offsets(self, group, offsets):
        """Commits {place: offset} for a group that has no members."""
        raise NotImplementedError

    def delete_offsets(self, group, places):
        raise NotImplementedError

    def error_name(self, error):
        """Kafka's own name of an error: NON_EMPTY_GROUP"""
        raise NotImplementedError


class Party:
    """One group, its members, and the records written for them."""

    def __init__(self, suite, name, protocol="classic", session=LONG_SESSION, **options):
        self.client = suite.client
        if protocol == "consumer":
            name += "-848"
            if self.client.no_consumer_protocol:
                raise NotAvailable(self.client.no_consumer_protocol)
        self.places = suite.group_places(f"group-{name}")
        self.group = f"{suite.prefix}-{name}"
        topics = sorted({topic for topic, _ in self.places})
        self.membership = Membership(self.group, topics, protocol, session, **options)
        self.members = []
        self.written = {}  # place: every record written
        self.unread = {}  # place: those that nobody has got yet
        self.repeats = False  # whether what is not committed may come again
        self.child = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.kill_child()
        for member in self.members:
            try:
                member.leave()
            except Exception as failure:
                print(f"leaving: {failure!r}", file=sys.stderr)

    def kill_child(self):
        """And what it started itself: kcat."""
        if self.child is not None:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.communicate()
            self.child = None

    def join(self, **options):
        member = self.client.member(self.membership._replace(**options))
        self.members.append(member)
        return member

    def leave(self, member):
        self.members.remove(member)
        member.leave()

    def write(self, count=5, places=None):
        for place in places or self.places:
            before = len(self.written.setdefault(place, []))
            records = batch(f"{place[0]}/{place[1]}", count, self.client.sets_timestamps, before)
            producer = self.client.producer()
            try:
                producer.send(*place, records)
            finally:
                producer.close()
            self.written[place] += records
            self.unread.setdefault(place, []).extend(records)

    def until(self, what, holds, seconds=None):
        deadline = time.monotonic() + (seconds or self.client.timeout)
        while not holds():
            if time.monotonic() > deadline:
                shown = [sorted(member.places) for member in self.members]
                got = [len(member.got) for member in self.members]
                raise Wrong(f"{what}: members hold {shown} and have got {got} records")
            for member in self.members:
                member.step()

    def settled(self, what="each partition has one owner, and no member more than another", seconds=None, still=0):
        """Waits until the members share the places evenly, and no rebalance has begun for `still` seconds."""
        seen, since = None, 0

        def even():
            nonlocal seen, since
            events = [(member.gained, len(member.lost)) for member in self.members]
            if events != seen:
                seen, since = events, time.monotonic()
            sizes = [len(member.places) for member in self.members]
            held = set().union(*(member.places for member in self.members))
            fair = sum(sizes) == len(self.places) and held == set(self.places) and max(sizes) - min(sizes) <= 1
            return fair and time.monotonic() >= since + still

        self.until(what, even, seconds)

    def read(self, seconds=None):
        """Waits until members have got what was written and not read; each record once, in order, by its owner."""
        want = sum(len(records) for records in self.unread.values())
        self.until(f"{want} records", lambda: sum(len(member.got) for member in self.members) >= want, seconds)
        quiet = time.monotonic() + QUIET
        self.until("quiet", lambda: time.monotonic() > quiet)
        for place, records in self.unread.items():
            got = [(member, at, record) for member in self.members for p, at, record in member.got if p == place]
            if self.repeats:
                got = list({at: (member, at, record) for member, at, record in got}.values())
            same_records([row[1:] for row in got], records, len(self.written[place]) - len(records))
            for member, _, _ in got:
                if place not in member.places:
                    raise Wrong(f"records of {place} came to a member that holds {sorted(member.places)}")
        if not self.repeats:
            equal("records of all partitions", sum(len(member.got) for member in self.members), want)
        self.unread = {}

    def commit(self):
        """Every member commits all that it has got, and begins anew."""
        for member in self.members:
            positions = member.positions()
            if positions:
                member.commit({place: (offset, "") for place, offset in positions.items()})
            member.got.clear()

    def read_and_commit(self):
        self.read()
        self.commit()

    def child_joins(self):
        """A member in a process of its own; returns when it holds places."""
        text = json.dumps(self.membership._replace(client_id="child"))
        command = [sys.executable, sys.argv[0], self.client.bootstrap, "--member", text]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        said = b""

        def holds():
            nonlocal said
            if select.select([self.child.stdout], [], [], 0)[0]:
                said = self.child.stdout.readline()
            return len(json.loads(said or "[]")) == len(self.places) // 2

        self.until("the other process holds half", holds)
        self.until("ours holds the other half", lambda: len(self.members[0].places) == len(self.places) // 2)


class Suite(suite.Suite):
    def group_places(self, name):
        """A new topic, and its partitions."""
        topic = self.new_topic(name, PLACES)
        return [(topic, partition) for partition in range(PLACES)]

    def add_places(self, party):
        topic = party.places[0][0]
        self.client.create_partitions(topic, PLACES + 2)
        party.places += [(topic, PLACES), (topic, PLACES + 1)]

    @staticmethod
    def be_member(client, text):
        """The process that crashes: joins, says what it holds whenever that changes, and is killed."""
        member = client.member(Membership(*json.loads(text)))
        said = None
        while True:
            member.step()
            if member.places != said:
                said = set(member.places)
                print(json.dumps(sorted(said)), flush=True)

    def refused(self, name, call, *arguments):
        try:
            call(*arguments)
        except NotAvailable:
            raise
        except Exception as error:
            equal("the refusal", self.client.error_name(error), name)
        else:
            raise Wrong(f"not refused with {name}")

    def group_join(self, protocol="classic"):
        with Party(self, "join", protocol) as party:
            party.write()
            party.join()
            party.settled("it holds every partition")
            party.read_and_commit()
            party.write()
            party.read()
        return f"{PLACES} partitions, records from before and after"

    def group_rebalance(self, protocol="classic", cooperative=False):
        name = "cooperative" if cooperative else "rebalance"
        if cooperative and self.client.no_cooperative:
            raise NotAvailable(self.client.no_cooperative)
        with Party(self, name, protocol, cooperative=cooperative) as party:
            first = party.join()
            party.settled()
            party.write()
            party.read_and_commit()
            second = party.join()
            party.settled()
            if self.client.tells_rebalances:
                taken = second.places if cooperative or protocol == "consumer" else set(party.places)
                equal("taken from the first", set().union(*first.lost), taken)
            party.write()
            party.read_and_commit()
            self.add_places(party)
            # The member that learns of them last begins another rebalance.
            party.settled("the new partitions are shared out", still=3 * REFRESH)
            party.write()
            party.read()
        return f"{PLACES} partitions among 1, then 2, then {len(party.places)} among 2; each record once, by its owner"

    def group_leave(self, protocol="classic"):
        with Party(self, "leave", protocol) as party:
            party.join()
            second = party.join()
            party.settled()
            party.write()
            party.read_and_commit()
            party.leave(second)
            party.settled("the other takes over at once", SOON)
            party.write()
            party.read()
        return "the other takes over at once"

    def group_crash(self, protocol="classic"):
        with Party(self, "crash", protocol, SHORT_SESSION) as party:
            party.join()
            party.settled()
            party.write()
            party.read_and_commit()
            party.child_joins()
            party.kill_child()
            killed = time.monotonic()
            party.write(places=sorted(set(party.places) - party.members[0].places))
            party.settled("ours takes over when the session is over", SHORT_SESSION + self.client.timeout)
            took = time.monotonic() - killed
            party.read()
        if not SHORT_SESSION / 2 < took < SHORT_SESSION * 2:
            raise Wrong(f"taken over after {took:.1f} s")
        return f"taken over when the session of {SHORT_SESSION} s was over"

    def group_static(self, protocol="classic"):
        if self.client.no_static:
            raise NotAvailable(self.client.no_static)
        with Party(self, "static", protocol) as party:
            first = party.join(instance="first")
            second = party.join(instance="second")
            party.settled()
            party.write()
            party.read_and_commit()
            held, seen = set(second.places), (len(first.lost), first.gained)
            party.leave(second)
            party.write()
            second = party.join(instance="second")
            party.settled("the same id is the same member")
            party.read()
            equal("places of the one that came again", second.places, held)
            if self.client.tells_rebalances:
                equal("rebalances of the other", (len(first.lost), first.gained), seen)
        return "the same partitions again, and no rebalance for the other"

    def group_resume(self, protocol="classic"):
        with Party(self, "resume", protocol) as party:
            first = party.join()
            party.write(10)
            party.read()
            first.commit({place: (3 + place[1], "") for place in party.places})
            party.leave(first)
            for place in party.places:
                party.unread[place] = party.written[place][3 + place[1] :]
            party.join()
            party.read()
            for place in party.places:
                equal("committed", self.client.committed(party.group, place), (3 + place[1], ""))
        return "a new member goes on behind the committed offsets"

    def group_metadata(self):
        limit = self.client.metadata_limit
        texts = ["", "plain", "не ASCII" * 500, "x" * limit]  # counted in characters: the third has 7000 bytes
        with Party(self, "metadata") as party:
            member = party.join()
            party.settled()
            member.commit({place: (i, text) for i, (place, text) in enumerate(zip(party.places, texts))})
            for i, (place, text) in enumerate(zip(party.places, texts)):
                equal("committed", self.client.committed(party.group, place), (i, text))
            over = {party.places[0]: (9, "x" * (limit + 1))}
            self.refused("OFFSET_METADATA_TOO_LARGE", member.commit, over)
            equal("committed", self.client.committed(party.group, party.places[0]), (0, ""))
        return f"empty, plain, not ASCII, {limit} characters; one more refused"

    def group_reset(self):
        with Party(self, "reset") as party:
            member = party.join()
            party.write(10)
            party.read_and_commit()
            offsets = {place: 2 + place[1] for place in party.places}
            self.refused("UNKNOWN_MEMBER_ID", self.client.set_offsets, party.group, offsets)
            party.leave(member)
            self.client.set_offsets(party.group, offsets)
            for place in party.places:
                party.unread[place] = party.written[place][2 + place[1] :]
            party.join()
            party.read()
        return "refused while there is a member; then the next begins where it was told"

    def wait_state(self, party, state):
        """Of a group that members have just left, or that is gone."""
        deadline = time.monotonic() + SOON
        while (found := self.client.describe_group(party.group)[0]) != state and time.monotonic() < deadline:
            time.sleep(0.05)
        equal("state", found, state)

    def group_admin(self, protocol="classic"):
        if self.client.no_describe:
            raise NotAvailable(self.client.no_describe)
        with Party(self, "admin", protocol) as party:
            members = [party.join(client_id=f"member-{i}") for i in range(2)]
            party.settled()
            equal("state in the list", self.client.groups().get(party.group, "absent"), self.listed("Stable"))
            state, described = self.client.describe_group(party.group)
            equal("state", state, "Stable")
            equal("members", described, {f"member-{i}": member.places for i, member in enumerate(members)})
            for member in members:
                party.leave(member)
            self.wait_state(party, "Empty")
            equal("members", self.client.describe_group(party.group)[1], {})
        equal("state of no group", self.client.describe_group("there is no such group"), ("Dead", {}))
        return "listed; described with its members, without them, and when there is none"

    def listed(self, state):
        """What the list says, as far as the client shows it."""
        return state if any(state for state in self.client.groups().values()) else None

    def group_delete(self, protocol="classic"):
        with Party(self, "delete", protocol) as party:
            member = party.join()
            party.write()
            party.read_and_commit()
            self.refused("NON_EMPTY_GROUP", self.client.delete_group, party.group)
            party.leave(member)
            self.client.delete_group(party.group)
            equal("in the list", party.group in self.client.groups(), False)
            self.refused("GROUP_ID_NOT_FOUND", self.client.delete_group, party.group)
            for place in party.places:
                party.unread[place] = list(party.written[place])
            party.join()
            party.read()
        return "refused while there is a member; then gone, and a new one begins at the start"

    def group_delete_offsets(self):
        with Party(self, "delete-offsets") as party:
            member = party.join()
            party.write()
            party.read_and_commit()
            gone, *kept = party.places
            self.refused("GROUP_SUBSCRIBED_TO_TOPIC", self.client.delete_offsets, party.group, [gone])
            party.leave(member)
            self.client.delete_offsets(party.group, [gone])
            equal("committed", self.client.committed(party.group, gone), None)
            for place in kept:
                equal("committed", self.client.committed(party.group, place), (5, ""))
        return "refused while there is a member; then that one gone and the others there"

    def group_regex(self):
        tag = f"{self.prefix}-regex"
        with Party(self, "regex", "consumer", pattern=f"^{tag}-[a-z]+$") as party:
            self.new_topic("regex-1")
            party.places = [(self.new_topic("regex-a"), 0)]
            party.join()
            party.settled()
            party.write()
            party.read_and_commit()
            party.places.append((self.new_topic("regex-b"), 0))
            party.settled("the new topic is found")
            party.write()
            party.read()
        return "a topic from before and one from after; none that does not match"

    def group_restart(self, how, protocol="classic"):
        # The old id of a member that comes back with a new one may be waited for.
        with Party(self, f"restart-{how}", protocol, SHORT_SESSION) as party:
            party.join()
            party.join()
            party.settled()
            party.write()
            party.read_and_commit()
            self.restart_broker(how)
            # A member that finds the broker gone may join again, and begins at what is committed.
            party.repeats = True
            party.write()
            party.read_and_commit()
            party.settled()
            for place in party.places if self.client.tells_commits else ():
                equal("committed", self.client.committed(party.group, place), (10, ""))
        return "the same members go on behind their commits"

    def checks(self):
        yield from super().checks()
        yield "group.join", self.group_join
        yield "group.rebalance", self.group_rebalance
        yield "group.cooperative", lambda: self.group_rebalance(cooperative=True)
        yield "group.leave", self.group_leave
        yield "group.crash", self.group_crash
        yield "group.static", self.group_static
        yield "group.resume", self.group_resume
        yield "group.metadata", self.group_metadata
        yield "group.reset", self.group_reset
        yield "group.admin", self.group_admin
        yield "group.delete", self.group_delete
        yield "group.delete_offsets", self.group_delete_offsets
        yield "group.restart.clean", lambda: self.group_restart("clean")
        yield "group.restart.kill", lambda: self.group_restart("kill")
        yield "group848.join", lambda: self.group_join("consumer")
        yield "group848.rebalance", lambda: self.group_rebalance("consumer")
        yield "group848.leave", lambda: self.group_leave("consumer")
        yield "group848.crash", lambda: self.group_crash("consumer")
        yield "group848.static", lambda: self.group_static("consumer")
        yield "group848.resume", lambda: self.group_resume("consumer")
        yield "group848.regex", self.group_regex
        yield "group848.admin", lambda: self.group_admin("consumer")
        yield "group848.delete", lambda: self.group_delete("consumer")
        yield "group848.restart.clean", lambda: self.group_restart("clean", "consumer")
        yield "group848.restart.kill", lambda: self.group_restart("kill", "consumer")
