'use strict'
// kafkajs: the named checks, one JSON line each, for `cargo xtask compat` (../README.md); those of groups are in
// groups.js. kafkajs's consumer works through groups only, so what the others have produced is read back through the
// layer under it: kafkajs's own connection, Fetch request and decoder. The Python, Go and Java programs do the same
// checks.

const assert = require('node:assert/strict')
const readline = require('node:readline')
const { parseArgs } = require('node:util')

const modules = process.env.COMPAT_MODULES ?? `${__dirname}/../.cache/kafkajs/node_modules`
const load = name => require(`${modules}/${name}`)
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = load('kafkajs')
const Cluster = load('kafkajs/src/cluster')
const { MemberAssignment } = load('kafkajs/src/consumer/assignerProtocol')
const { createLogger } = load('kafkajs/src/loggers')
const LoggerConsole = load('kafkajs/src/loggers/console')
const { groupChecks, beMember } = require('./groups')
const SnappyCodec = load('kafkajs-snappy')
const lz4 = load('lz4-napi')
const zstd = load('@bokuweb/zstd-wasm')

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: encoder => lz4.compressFrame(encoder.buffer),
  decompress: buffer => lz4.decompressFrame(buffer),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from(zstd.compress(encoder.buffer)),
  decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
})
const CODECS = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
}
const ACKS = { 0: 0, 1: 1, all: -1 }
const BATCH = 50
const GROUPS_ONLY = 'kafkajs consumes only through groups'

class NotAvailable extends Error {}

const sleep = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds))

/** Records that compress well and are all different, one second apart, an hour ago. */
function batch(tag, count = BATCH) {
  const base = (Math.floor(Date.now() / 1000) - 3600) * 1000
  return Array.from({ length: count }, (_, i) => ({
    key: Buffer.from(`${tag} key ${i}`),
    value: Buffer.from(`${tag} value ${i} ${'the same words again and again, '.repeat(6)}`),
    timestamp: String(base + i * 1000),
  }))
}

/** Bytes that no codec shrinks, the same for the same seed (xorshift). */
function incompressible(size, seed) {
  const bytes = Buffer.alloc(size)
  let state = seed
  for (let i = 0; i < size; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    bytes[i] = state
  }
  return bytes
}

function sameRecords(got, want, first = 0) {
  assert.deepEqual(
    got.map(record => record.offset),
    want.map((_, i) => String(first + i)),
    'offsets'
  )
  want.forEach((expect, i) => {
    assert.deepEqual(got[i].key, expect.key ?? null, `key at ${first + i}`)
    assert.deepEqual(got[i].value, expect.value ?? null, `value at ${first + i}`)
    assert.deepEqual({ ...got[i].headers }, expect.headers ?? {}, `headers at ${first + i}`)
    if (expect.timestamp) assert.equal(got[i].timestamp, expect.timestamp, `timestamp at ${first + i}`)
  })
}

class Suite {
  batch = batch
  sameRecords = sameRecords
  decodeAssignment = MemberAssignment.decode

  constructor({ bootstrap, prefix, timeout, input }) {
    Object.assign(this, { bootstrap, prefix, input, timeout: timeout * 1000 })
    this.options = {
      brokers: [bootstrap],
      clientId: 'compat',
      connectionTimeout: Math.min(this.timeout, 5000),
      requestTimeout: this.timeout,
      retry: { retries: 8, initialRetryTime: 100, maxRetryTime: this.timeout / 4 },
      logLevel: logLevel.NOTHING,
    }
    this.kafka = new Kafka(this.options)
    this.open = []
  }

  kafkaAs(clientId) {
    return new Kafka({ ...this.options, clientId })
  }

  async admin() {
    if (!this.connected) {
      const admin = this.kafka.admin()
      this.open.push(admin)
      await admin.connect()
      this.connected = admin
    }
    return this.connected
  }

  async producer(options = {}) {
    const producer = this.kafka.producer({
      createPartitioner: () => ({ message }) => message.partition ?? 0,
      allowAutoTopicCreation: false,
      ...options,
    })
    this.open.push(producer)
    await producer.connect()
    return producer
  }

  /** Reads through kafkajs's own Fetch until `count` records have come. */
  async reader(topic, offset = 0, partition = 0) {
    const cluster = new Cluster({
      ...this.options,
      logger: createLogger({ level: logLevel.NOTHING, logCreator: LoggerConsole }),
      socketFactory: load('kafkajs/src/network/socketFactory')(),
      enforceRequestTimeout: true,
      metadataMaxAge: 300000,
      isolationLevel: 0,
    })
    this.open.push(cluster)
    await cluster.connect()
    await cluster.addTargetTopic(topic)
    let next = offset
    const fetch = async () => {
      await cluster.refreshMetadataIfNecessary()
      const nodeId = Object.keys(cluster.findLeaderForPartitions(topic, [partition]))[0]
      const broker = await cluster.findBroker({ nodeId })
      const answer = await broker.fetch({
        maxWaitTime: 100,
        isolationLevel: 0,
        topics: [{ topic, partitions: [{ partition, fetchOffset: String(next), maxBytes: 8 << 20 }] }],
      })
      return answer.responses[0].partitions[0].messages.filter(message => Number(message.offset) >= next)
    }
    return async count => {
      const got = []
      const deadline = Date.now() + this.timeout
      let failure
      while (got.length < count && Date.now() < deadline) {
        try {
          const messages = await fetch()
          for (const { offset, key, value, timestamp, headers } of messages) {
            got.push({ offset, key, value, timestamp, headers })
            next = Number(offset) + 1
          }
        } catch (error) {
          failure = error
          await sleep(100)
          await cluster.refreshMetadata().catch(() => {})
        }
      }
      if (got.length !== count) throw new Error(`${got.length} of ${count} records: ${failure ?? 'no more came'}`)
      return got
    }
  }

  async read(topic, offset, count, partition = 0) {
    return (await this.reader(topic, offset, partition))(count)
  }

  async newTopic(name, numPartitions = 1, configs = {}) {
    const topic = `${this.prefix}-${name}`
    const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value }))
    const made = await (await this.admin()).createTopics({
      topics: [{ topic, numPartitions, replicationFactor: 1, configEntries }],
    })
    assert.equal(made, true, 'createTopics')
    return topic
  }

  async filled(name) {
    const records = batch(name)
    const topic = await this.newTopic(name)
    await this.write(topic, records, 'gzip')
    return { topic, records }
  }

  async write(topic, messages, codec = 'none', acks = 'all') {
    const producer = await this.producer()
    const answer = await producer.send({ topic, messages, acks: ACKS[acks], compression: CODECS[codec] })
    if (acks !== '0') assert.equal(answer[0].baseOffset, '0', 'base offset')
  }

  async partitions(topic) {
    const { topics } = await (await this.admin()).fetchTopicMetadata({ topics: [topic] })
    return topics[0].partitions.sort((a, b) => a.partitionId - b.partitionId)
  }

  async configs(topic) {
    const { resources } = await (await this.admin()).describeConfigs({
      resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }],
      includeSynonyms: false,
    })
    return Object.fromEntries(resources[0].configEntries.map(entry => [entry.configName, entry.configValue]))
  }

  // The checks.

  async topicCreate() {
    const topic = await this.newTopic('create', 3, { 'retention.ms': '86400000' })
    assert.deepEqual((await this.partitions(topic)).map(p => p.partitionId), [0, 1, 2])
    assert.equal((await this.configs(topic))['retention.ms'], '86400000')
    const again = await (await this.admin()).createTopics({ topics: [{ topic, numPartitions: 3 }] })
    assert.equal(again, false, 'created a second time')
    return '3 partitions, its config, and refused the second time'
  }

  async produce(codec, acks) {
    const topic = await this.newTopic(`produce-${codec}-${acks}`)
    const records = batch(`${codec}/${acks}`)
    await this.write(topic, records, codec, acks)
    sameRecords(await this.read(topic, 0, BATCH), records)
    return `${BATCH} records`
  }

  async idempotent() {
    const topic = await this.newTopic('idempotent')
    const records = batch('idempotent', BATCH * 8)
    const producer = await this.producer({ idempotent: true, maxInFlightRequests: 1 })
    for (let i = 0; i < records.length; i += BATCH) {
      await producer.send({ topic, messages: records.slice(i, i + BATCH) })
    }
    sameRecords(await this.read(topic, 0, records.length), records)
    return `${records.length} records in 8 batches`
  }

  async headers() {
    const topic = await this.newTopic('headers')
    const bytes = Buffer.from(Array.from({ length: 128 }, (_, i) => 128 + i))
    const records = [
      { value: Buffer.from('one'), headers: { a: Buffer.from('1') } },
      { value: Buffer.from('repeated'), headers: { b: [Buffer.from('1'), Buffer.from('3')], a: Buffer.from('2') } },
      { value: Buffer.from('empty value'), headers: { empty: Buffer.alloc(0) } },
      { value: Buffer.from('not ASCII'), headers: { ключ: Buffer.from('значение'), bytes } },
      { value: Buffer.from('none') },
    ]
    await this.write(topic, records)
    sameRecords(await this.read(topic, 0, records.length), records)
    return `${records.length} records, no null value: the client has no way`
  }

  async nullEmpty() {
    const topic = await this.newTopic('null-empty')
    const kinds = [null, Buffer.alloc(0), Buffer.from('x')]
    const records = kinds.flatMap(key => kinds.map(value => ({ key, value })))
    await this.write(topic, records)
    sameRecords(await this.read(topic, 0, records.length), records)
    return '9 pairs of null, empty and filled key and value'
  }

  async large() {
    const topic = await this.newTopic('large', 1, { 'max.message.bytes': '4194304' })
    const records = [1_000_000, 10, 2_000_000, 1_000_000].map((size, i) => ({ value: incompressible(size, i + 1) }))
    const producer = await this.producer()
    for (const record of records) await producer.send({ topic, messages: [record] })
    sameRecords(await this.read(topic, 0, records.length), records)
    return 'values of 1000000, 10, 2000000, 1000000 bytes'
  }

  async timestamp() {
    const { topic, records } = await this.filled('timestamp')
    const at = i => Number(records[i].timestamp)
    const admin = await this.admin()
    // Past the last record kafkajs answers with the end offset.
    for (const [target, expect] of [[at(0) - 1, 0], [at(0), 0], [at(20), 20], [at(20) + 1, 21], [at(49) + 1, 50]]) {
      const [{ offset }] = await admin.fetchTopicOffsetsByTimestamp(topic, target)
      assert.equal(offset, String(expect), `offset at ${target}`)
    }
    return `offsets only, inside one compressed batch: ${GROUPS_ONLY}`
  }

  async describeTopic() {
    const topic = await this.newTopic('describe', 4)
    const rows = await this.partitions(topic)
    const brokers = (await (await this.admin()).describeCluster()).brokers.map(broker => broker.nodeId)
    assert.deepEqual(rows.map(row => row.partitionId), [0, 1, 2, 3])
    for (const row of rows) {
      assert.ok(brokers.includes(row.leader), 'leader')
      assert.ok(row.replicas.includes(row.leader) && row.isr.includes(row.leader), 'replicas')
    }
    assert.ok((await (await this.admin()).listTopics()).includes(topic), 'in the list of topics')
    return '4 partitions with leader, replicas and in-sync replicas'
  }

  async describeConfigs() {
    const configs = await this.configs(await this.newTopic('configs', 1, { 'max.message.bytes': '2000000' }))
    assert.equal(configs['max.message.bytes'], '2000000')
    assert.equal(configs['cleanup.policy'], 'delete')
    const count = Object.keys(configs).length
    assert.ok(count >= 25, `only ${count} configs`)
    return `${count} configs`
  }

  async alterConfigs() {
    const topic = await this.newTopic('alter')
    const admin = await this.admin()
    const alter = changes =>
      admin.alterConfigs({
        validateOnly: false,
        resources: [
          {
            type: ConfigResourceTypes.TOPIC,
            name: topic,
            configEntries: Object.entries(changes).map(([name, value]) => ({ name, value })),
          },
        ],
      })
    await alter({ 'retention.ms': '123456789', 'max.message.bytes': '3000000' })
    let configs
    do configs = await this.configs(topic)
    while (configs['retention.ms'] !== '123456789' && (await sleep(50), true))
    assert.equal(configs['max.message.bytes'], '3000000')
    await assert.rejects(alter({ 'retention.ms': 'soon' }), error => /invalid/i.test(`${error.type} ${error.message}`))
    return 'changed two; a wrong value refused'
  }

  async createPartitions() {
    const topic = await this.newTopic('partitions')
    assert.notEqual(await (await this.admin()).createPartitions({ topicPartitions: [{ topic, count: 5 }] }), false)
    let rows
    do rows = await this.partitions(topic)
    while (rows.length !== 5 && (await sleep(50), true))
    assert.deepEqual(rows.map(row => row.partitionId), [0, 1, 2, 3, 4])
    const records = batch('partitions', 3)
    const producer = await this.producer()
    await producer.send({ topic, messages: records.map(record => ({ ...record, partition: 4 })) })
    sameRecords(await this.read(topic, 0, 3, 4), records)
    return '1 to 5, and the fifth written and read'
  }

  async deleteRecords() {
    const { topic, records } = await this.filled('delete-records')
    const admin = await this.admin()
    await admin.fetchTopicOffsets(topic) // kafkajs finds the leader only of topics that it has looked at
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '20' }] })
    const [{ low, high }] = await admin.fetchTopicOffsets(topic)
    assert.deepEqual({ low, high }, { low: '20', high: '50' })
    sameRecords(await this.read(topic, 20, 30), records.slice(20), 20)
    return '20 of 50 gone, the other 30 read'
  }

  async deleteTopic() {
    const topic = await this.newTopic('delete-topic')
    const admin = await this.admin()
    await admin.deleteTopics({ topics: [topic] })
    while ((await admin.listTopics()).includes(topic)) await sleep(50)
    return 'gone from the list'
  }

  async describeCluster() {
    const { clusterId, controller, brokers } = await (await this.admin()).describeCluster()
    assert.ok(brokers.some(({ host, port }) => `${host}:${port}` === this.bootstrap), 'our address')
    assert.ok(brokers.some(({ nodeId }) => nodeId === controller), 'controller')
    assert.ok(clusterId.length >= 8, 'cluster id')
    return `cluster ${clusterId}, ${brokers.length} broker`
  }

  /** Has the runner restart the broker, and returns when that is done. */
  async restartBroker(how) {
    this.pause()
    console.log(`RESTART ${how}`)
    const { value: answer } = await this.input.next()
    if (answer !== 'RESTARTED') throw new NotAvailable(answer ?? 'the runner did not restart the broker')
    this.resume()
  }

  async notAvailable(reason) {
    throw new NotAvailable(reason)
  }

  async restart(how) {
    const topic = await this.newTopic(`restart-${how}`)
    const records = batch(`restart-${how}`, 60)
    const producer = await this.producer()
    const read = await this.reader(topic)
    const step = async (from, to) => {
      await producer.send({ topic, messages: records.slice(from, to) })
      sameRecords(await read(to - from), records.slice(from, to), from)
    }
    await step(0, 20)
    await this.restartBroker(how)
    await step(20, 40)
    await step(40, 60)
    sameRecords(await this.read(topic, 0, 60), records)
    assert.equal((await this.partitions(topic)).length, 1)
    return 'the same producer and connection go on; all 60 records read again'
  }

  checks() {
    const groupsOnly = () => this.notAvailable(GROUPS_ONLY)
    const list = [['topic.create', () => this.topicCreate()]]
    for (const codec of Object.keys(CODECS)) {
      for (const acks of Object.keys(ACKS)) {
        list.push([`produce.${codec}.${acks}`, () => this.produce(codec, acks)])
      }
    }
    return [
      ...list,
      ['produce.idempotent', () => this.idempotent()],
      ['records.headers', () => this.headers()],
      ['records.null_empty', () => this.nullEmpty()],
      ['records.1mb', () => this.large()],
      ['consume.start', groupsOnly],
      ['consume.middle', groupsOnly],
      ['consume.timestamp', () => this.timestamp()],
      ['consume.end', groupsOnly],
      ['admin.describe_topic', () => this.describeTopic()],
      ['admin.describe_configs', () => this.describeConfigs()],
      ['admin.alter_configs', () => this.alterConfigs()],
      ['admin.create_partitions', () => this.createPartitions()],
      ['admin.delete_records', () => this.deleteRecords()],
      ['admin.delete_topic', () => this.deleteTopic()],
      ['admin.describe_cluster', () => this.describeCluster()],
      ['restart.clean', () => this.restart('clean')],
      ['restart.kill', () => this.restart('kill')],
      ...groupChecks(this),
    ]
  }

  /** Runs one check, which fails when it takes longer than the timeout (the time of a restart apart). */
  async run(check) {
    let timer
    let late
    const timedOut = new Promise((_, reject) => {
      late = () => reject(new Error(`not done within ${this.timeout / 1000} s`))
    })
    this.pause = () => clearTimeout(timer)
    this.resume = () => {
      timer = setTimeout(late, this.timeout)
    }
    this.resume()
    try {
      return await Promise.race([check(), timedOut])
    } finally {
      this.pause()
      await Promise.race([Promise.allSettled(this.open.map(client => client.disconnect())), sleep(2000)])
    }
  }
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      prefix: { type: 'string', default: 'compat' },
      timeout: { type: 'string', default: '30' },
      only: { type: 'string', default: '' },
      member: { type: 'string' }, // be the member of a group that a check kills
    },
  })
  const [bootstrap] = positionals
  if (!bootstrap) {
    console.error('usage: check.js HOST:PORT [--prefix NAME] [--timeout SECONDS] [--only TEXT]')
    process.exit(2)
  }
  await zstd.init()
  const input = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]()
  const say = line => console.log(JSON.stringify(line))
  const settings = { bootstrap, prefix: values.prefix, timeout: Number(values.timeout), input }
  if (values.member) await beMember(new Suite(settings).kafka, values.member)
  say({ client: 'kafkajs', version: load('kafkajs/package.json').version })
  for (const [check] of new Suite(settings).checks()) {
    if (!check.includes(values.only)) continue
    const suite = new Suite(settings)
    try {
      const detail = await suite.run(new Map(suite.checks()).get(check))
      say({ check, ok: true, detail })
    } catch (error) {
      if (error instanceof NotAvailable) say({ check, na: error.message })
      else say({ check, ok: false, detail: String(error?.message ?? error).slice(0, 400) })
    }
  }
  process.exit(0)
}

// A client that failed to connect may reject a promise that nobody holds any more; its check has failed already.
process.on('unhandledRejection', error => console.error(`unhandled: ${error?.message ?? error}`))
main()
