'use strict'
// The named checks of consumer groups with kafkajs: members that run in this process, and one in a process of its own,
// to be killed. kafkajs speaks only the classic group protocol, and rebalances only eagerly.

const assert = require('node:assert/strict')
const { spawn } = require('node:child_process')
const readline = require('node:readline')

const PLACES = 4 // partitions of a group's topic
const LONG_SESSION = 30_000 // longer than any check of what happens without a timeout
const SHORT_SESSION = 6_000 // the shortest that Kafka allows
const SOON = 5_000 // for what may not wait for a session to time out
const REFRESH = 500 // how often members look for new partitions
const QUIET = 200 // in which a record too many would come

const sleep = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds))
const nameOf = (topic, partition) => `${topic}/${partition}`

/** A member; what it holds and gets is gathered while the check waits. It commits nothing by itself. */
class Member {
  static async join(kafka, { group, topic, session }) {
    const member = new Member()
    const { GROUP_JOIN, REBALANCING } = (member.consumer = kafka.consumer({
      groupId: group,
      sessionTimeout: session,
      heartbeatInterval: REFRESH,
      metadataMaxAge: REFRESH,
      maxWaitTimeInMs: 100,
      retry: { retries: 20, initialRetryTime: 100, maxRetryTime: 1000 },
    })).events
    member.places = []
    member.lost = new Set() // ever taken from it
    member.changes = 0
    member.got = []
    member.consumer.on(GROUP_JOIN, ({ payload }) => {
      const held = Object.entries(payload.memberAssignment)
      member.places = held.flatMap(([topic, partitions]) => partitions.map(p => nameOf(topic, p))).sort()
      member.changes++
    })
    member.consumer.on(REBALANCING, () => {
      for (const place of member.places) member.lost.add(place)
      member.places = []
      member.changes++
    })
    await member.consumer.connect()
    await member.consumer.subscribe({ topics: [topic], fromBeginning: true })
    await member.consumer.run({
      autoCommit: false,
      eachMessage: async ({ topic, partition, message }) => {
        const { offset, key, value, timestamp, headers } = message
        member.got.push({ place: nameOf(topic, partition), record: { offset, key, value, timestamp, headers } })
      },
    })
    return member
  }

  commit(topic, offsets) {
    return this.consumer.commitOffsets(
      offsets.map(({ partition, offset, metadata }) => ({ topic, partition, offset: String(offset), metadata }))
    )
  }

  leave() {
    return this.consumer.disconnect()
  }
}

/** One group, its members, and the records written for them. */
class Party {
  constructor(suite, name, session) {
    Object.assign(this, { suite, members: [], written: new Map(), unread: new Map() })
    Object.assign(this, { group: `${suite.prefix}-${name}`, topic: `${suite.prefix}-group-${name}`, session })
    this.partitions = PLACES
    this.repeats = false // whether what is not committed may come again
  }

  get places() {
    return Array.from({ length: this.partitions }, (_, partition) => nameOf(this.topic, partition))
  }

  async join(clientId = 'compat') {
    const member = await Member.join(this.suite.kafkaAs(clientId), this)
    this.members.push(member)
    return member
  }

  async leave(member) {
    this.members = this.members.filter(each => each !== member)
    await member.leave()
  }

  /** 5 new records to each partition. */
  async write(partitions = Array.from({ length: this.partitions }, (_, partition) => partition)) {
    const producer = await this.suite.producer()
    for (const partition of partitions) {
      const place = nameOf(this.topic, partition)
      const before = this.written.get(place) ?? []
      const records = this.suite.batch(place, before.length + 5).slice(before.length)
      await producer.send({ topic: this.topic, messages: records.map(record => ({ ...record, partition })) })
      this.written.set(place, [...before, ...records])
      this.unread.set(place, [...(this.unread.get(place) ?? []), ...records])
    }
    await producer.disconnect()
  }

  async until(what, holds, patience = this.suite.timeout * 0.8) {
    const deadline = Date.now() + patience
    while (!holds()) {
      const seen = () => this.members.map(member => `${member.places} and ${member.got.length} records`).join('; ')
      if (Date.now() > deadline) throw new Error(`${what}: members have ${seen()}`)
      await sleep(10)
    }
  }

  /** Waits until the members share the partitions evenly, and no rebalance has begun for a while. */
  async settled(patience, still = 0) {
    let seen
    let since
    const even = () => {
      const sizes = this.members.map(member => member.places.length)
      const held = this.members.flatMap(member => member.places).sort()
      const changes = this.members.map(member => member.changes).join()
      if (changes !== seen) [seen, since] = [changes, Date.now()]
      const fair = held.join() === this.places.join() && Math.max(...sizes) - Math.min(...sizes) <= 1
      return fair && Date.now() >= since + still
    }
    await this.until('each partition has one owner, and no member more than another', even, patience)
  }

  /** Waits until members have got what was written and not read; each record once, in order, by its owner. */
  async read() {
    const want = [...this.unread.values()].flat().length
    const total = () => this.members.flatMap(member => member.got).length
    await this.until(`${want} records`, () => total() >= want)
    await sleep(QUIET)
    for (const [place, records] of this.unread) {
      const got = []
      for (const member of this.members) {
        const own = member.got.filter(each => each.place === place)
        assert.ok(own.length === 0 || member.places.includes(place), `records of ${place} came to its owner`)
        got.push(...own.map(({ record }) => record))
      }
      const seen = this.repeats ? [...new Map(got.map(record => [record.offset, record])).values()] : got
      this.suite.sameRecords(seen, records, this.written.get(place).length - records.length)
    }
    if (!this.repeats) assert.equal(total(), want, 'number of records')
    this.unread.clear()
  }

  async readAndCommit() {
    await this.read()
    for (const member of this.members) {
      const last = new Map(member.got.map(({ place, record }) => [place, Number(record.offset) + 1]))
      const offsets = [...last].map(([place, offset]) => ({ partition: Number(place.split('/')[1]), offset }))
      if (offsets.length) await member.commit(this.topic, offsets)
      member.got = []
    }
  }

  async exchange() {
    await this.write()
    await this.readAndCommit()
  }

  /** Has every partition read anew, partition p from `from(p)`. */
  again(from) {
    for (const [place, records] of this.written) {
      this.unread.set(place, records.slice(from(Number(place.split('/')[1]))))
    }
  }

  async committed(partition) {
    const [row] = await (await this.suite.admin()).fetchOffsets({ groupId: this.group, topics: [this.topic] })
    const { offset, metadata } = row.partitions.find(each => each.partition === partition)
    return { offset: Number(offset), metadata: metadata ?? '' }
  }

  async describe(group = this.group) {
    const { groups } = await (await this.suite.admin()).describeGroups([group])
    const members = groups[0].members.map(({ clientId, memberAssignment }) => {
      const { assignment } = this.suite.decodeAssignment(memberAssignment)
      const held = Object.entries(assignment)
      return [clientId, held.flatMap(([topic, partitions]) => partitions.map(p => nameOf(topic, p))).sort()]
    })
    return { state: groups[0].state, members: Object.fromEntries(members) }
  }

  /** A member in a process of its own; returns it when it holds half of the partitions. */
  async joinChild() {
    const membership = JSON.stringify({ group: this.group, topic: this.topic, session: this.session })
    const child = spawn(process.argv[0], [process.argv[1], this.suite.bootstrap, '--member', membership], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    this.child = child
    let said
    readline.createInterface({ input: child.stdout }).on('line', line => (said = line))
    const half = String(PLACES / 2)
    await this.until('half here and half there', () => said === half && this.members[0].places.length === PLACES / 2)
    return child
  }
}

/** The process that crashes: says how many partitions it holds whenever that changes, and is killed. */
async function beMember(kafka, text) {
  const member = await Member.join(kafka, JSON.parse(text))
  for (let last; ; await sleep(10)) {
    if (member.places.length !== last) console.log((last = member.places.length))
  }
}

const CHECKS = {
  async join(party) {
    await party.write()
    await party.join()
    await party.settled()
    await party.readAndCommit()
    await party.exchange()
    return `${PLACES} partitions, records from before and after`
  },

  async rebalance(party) {
    const first = await party.join()
    await party.settled()
    await party.exchange()
    await party.join()
    await party.settled()
    assert.deepEqual([...first.lost].sort(), party.places, 'taken from the first')
    await party.exchange()
    party.partitions = PLACES + 2
    const change = { topic: party.topic, count: party.partitions }
    assert.notEqual(await (await party.suite.admin()).createPartitions({ topicPartitions: [change] }), false)
    // The member that learns of them last begins another rebalance.
    await party.settled(undefined, 3 * REFRESH)
    await party.exchange()
    return '4 partitions among 1, then 2, then 6 among 2; each record once, by its owner'
  },

  async leave(party) {
    await party.join()
    const second = await party.join()
    await party.settled()
    await party.exchange()
    await party.leave(second)
    await party.settled(SOON)
    await party.exchange()
    return 'the other takes over at once'
  },

  async crash(party) {
    const first = await party.join()
    await party.settled()
    await party.exchange()
    const child = await party.joinChild()
    child.kill('SIGKILL')
    const killed = Date.now()
    await party.write([0, 1, 2, 3].filter(partition => !first.places.includes(nameOf(party.topic, partition))))
    await party.settled()
    const took = Date.now() - killed
    assert.ok(took > SHORT_SESSION / 2 && took < SHORT_SESSION * 2, `taken over after ${took} ms`)
    await party.read()
    return `taken over when the session of ${SHORT_SESSION / 1000} s was over`
  },

  async resume(party) {
    const first = await party.join()
    await party.write()
    await party.read()
    await first.commit(party.topic, [0, 1, 2, 3].map(partition => ({ partition, offset: 1 + partition })))
    await party.leave(first)
    party.again(partition => 1 + partition)
    await party.join()
    await party.read()
    for (const p of [0, 1, 2, 3]) assert.deepEqual(await party.committed(p), { offset: 1 + p, metadata: '' })
    return 'a new member goes on behind the committed offsets'
  },

  async metadata(party) {
    const member = await party.join()
    await party.settled()
    // Counted in characters: the third has 7000 bytes.
    const texts = ['', 'plain', 'не ASCII'.repeat(500), 'x'.repeat(4096)]
    await member.commit(party.topic, texts.map((metadata, partition) => ({ partition, offset: partition, metadata })))
    for (const [offset, metadata] of texts.entries()) {
      assert.deepEqual(await party.committed(offset), { offset, metadata })
    }
    const over = member.commit(party.topic, [{ partition: 0, offset: 9, metadata: 'x'.repeat(4097) }])
    await assert.rejects(over, error => /metadata field of the offset request was too large/.test(error.message))
    assert.deepEqual(await party.committed(0), { offset: 0, metadata: '' })
    return 'empty, plain, not ASCII, 4096 characters; one more refused'
  },

  async reset(party) {
    const member = await party.join()
    await party.exchange()
    const partitions = [0, 1, 2, 3].map(partition => ({ partition, offset: String(1 + partition) }))
    const admin = await party.suite.admin()
    const set = () => admin.setOffsets({ groupId: party.group, topic: party.topic, partitions })
    await assert.rejects(set(), /no running instances/)
    await party.leave(member)
    await set()
    party.again(partition => 1 + partition)
    await party.join()
    await party.read()
    return 'refused while there is a member (by kafkajs itself); then the next begins where it was told'
  },

  async admin(party) {
    const members = [await party.join('member-0'), await party.join('member-1')]
    await party.settled()
    const listed = async () => (await (await party.suite.admin()).listGroups()).groups.map(({ groupId }) => groupId)
    assert.ok((await listed()).includes(party.group), 'in the list')
    const held = { 'member-0': members[0].places, 'member-1': members[1].places }
    assert.deepEqual(await party.describe(), { state: 'Stable', members: held })
    for (const member of members) await party.leave(member)
    const deadline = Date.now() + SOON
    while ((await party.describe()).state !== 'Empty' && Date.now() < deadline) await sleep(50)
    assert.deepEqual(await party.describe(), { state: 'Empty', members: {} })
    assert.deepEqual(await party.describe('there is no such group'), { state: 'Dead', members: {} })
    return 'listed; described with its members, without them, and when there is none'
  },

  async delete(party) {
    const member = await party.join()
    await party.exchange()
    const admin = await party.suite.admin()
    const refused = async type =>
      assert.rejects(admin.deleteGroups([party.group]), ({ groups }) => {
        assert.equal(groups?.[0].error.type, type)
        return true
      })
    await refused('NON_EMPTY_GROUP')
    await party.leave(member)
    await admin.deleteGroups([party.group])
    assert.ok(!(await admin.listGroups()).groups.some(({ groupId }) => groupId === party.group), 'in the list')
    await refused('GROUP_ID_NOT_FOUND')
    party.again(() => 0)
    await party.join()
    await party.read()
    return 'refused while there is a member; then gone, and a new one begins at the start'
  },
}

async function restart(party, how) {
  await party.join()
  await party.join()
  await party.settled()
  await party.exchange()
  await party.suite.restartBroker(how)
  // A member that finds the broker gone may join again, and begins at what is committed.
  party.repeats = true
  await party.exchange()
  await party.settled()
  for (const p of [0, 1, 2, 3]) assert.deepEqual(await party.committed(p), { offset: 10, metadata: '' })
  return 'the same members go on behind their commits'
}

const NOT_AVAILABLE = {
  cooperative: 'kafkajs rebalances only eagerly',
  static: 'kafkajs has no static members',
  delete_offsets: 'kafkajs has no call that deletes offsets',
}
const CLASSIC = 'join rebalance cooperative leave crash static resume metadata reset admin delete delete_offsets'
const CONSUMER = 'join rebalance leave crash static resume regex admin delete restart.clean restart.kill'

/** [name, check] of each; a check takes the suite's `NotAvailable` for what kafkajs cannot do. */
function groupChecks(suite) {
  const check = (name, run) => async () => {
    // After a restart, the old id of a member that comes back with a new one may be waited for.
    const short = name === 'crash' || name.startsWith('restart')
    const party = new Party(suite, name.replaceAll('.', '-'), short ? SHORT_SESSION : LONG_SESSION)
    await suite.newTopic(`group-${name.replaceAll('.', '-')}`, PLACES)
    try {
      return await run(party)
    } finally {
      party.child?.kill('SIGKILL')
      await Promise.race([Promise.allSettled(party.members.map(member => member.leave())), sleep(2000)])
    }
  }
  const classic = CLASSIC.split(' ').map(name => [
    `group.${name}`,
    CHECKS[name] ? check(name, CHECKS[name]) : () => suite.notAvailable(NOT_AVAILABLE[name]),
  ])
  const restarts = ['clean', 'kill'].map(how => [
    `group.restart.${how}`,
    check(`restart.${how}`, party => restart(party, how)),
  ])
  const consumer = CONSUMER.split(' ').map(name => [
    `group848.${name}`,
    () => suite.notAvailable('kafkajs speaks only the classic group protocol'),
  ])
  return [...classic, ...restarts, ...consumer]
}

module.exports = { groupChecks, beMember }
