// franz-go: runs the checks of ../check with github.com/twmb/franz-go.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ottla/compat/check"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

type client struct {
	options []kgo.Opt
	kgo     *kgo.Client
	admin   *kadm.Client
}

func newClient(bootstrap string, timeout time.Duration) (check.Client, error) {
	options := []kgo.Opt{
		kgo.SeedBrokers(bootstrap),
		kgo.RetryTimeout(timeout),
		kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }),
		kgo.MetadataMinAge(100 * time.Millisecond),
	}
	base, err := kgo.NewClient(options...)
	if err != nil {
		return nil, err
	}
	return &client{options, base, kadm.NewClient(base)}, nil
}

func (c *client) Close() { c.kgo.Close() }

func (c *client) with(options ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(append([]kgo.Opt{}, c.options...), options...)...)
}

func (c *client) CreateTopic(ctx context.Context, name string, partitions int32, configs map[string]string) error {
	given := map[string]*string{}
	for key, value := range configs {
		given[key] = &value
	}
	answer, err := c.admin.CreateTopic(ctx, partitions, 1, given, name)
	if err != nil {
		return err
	}
	return answer.Err
}

func (c *client) Exists(err error) bool { return errors.Is(err, kerr.TopicAlreadyExists) }

func (c *client) Topics(ctx context.Context) ([]string, error) {
	topics, err := c.admin.ListTopics(ctx)
	return topics.Names(), err
}

func (c *client) DescribeTopic(ctx context.Context, name string) ([]check.Partition, error) {
	topics, err := c.admin.ListTopics(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := topics[name].Err; err != nil {
		return nil, err
	}
	var rows []check.Partition
	for _, p := range topics[name].Partitions.Sorted() {
		rows = append(rows, check.Partition{Index: p.Partition, Leader: p.Leader, Replicas: p.Replicas, ISR: p.ISR})
	}
	return rows, nil
}

func (c *client) DescribeConfigs(ctx context.Context, name string) (map[string]string, error) {
	answers, err := c.admin.DescribeTopicConfigs(ctx, name)
	if err != nil {
		return nil, err
	}
	answer, err := answers.On(name, nil)
	if err != nil {
		return nil, err
	}
	configs := map[string]string{}
	for _, config := range answer.Configs {
		configs[config.Key] = config.MaybeValue()
	}
	return configs, answer.Err
}

func (c *client) AlterConfigs(ctx context.Context, name string, configs map[string]string) error {
	var changes []kadm.AlterConfig
	for key, value := range configs {
		changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: key, Value: &value})
	}
	answers, err := c.admin.AlterTopicConfigs(ctx, changes, name)
	if err != nil {
		return err
	}
	answer, err := answers.On(name, nil)
	if err != nil {
		return err
	}
	return answer.Err
}

func (c *client) Refused(err error) bool { return errors.Is(err, kerr.InvalidConfig) }

func (c *client) CreatePartitions(ctx context.Context, name string, total int32) error {
	answers, err := c.admin.UpdatePartitions(ctx, int(total), name)
	if err != nil {
		return err
	}
	return answers.Error()
}

func (c *client) DeleteRecords(ctx context.Context, name string, partition int32, before int64) error {
	offsets := kadm.Offsets{}
	offsets.AddOffset(name, partition, before, -1)
	answers, err := c.admin.DeleteRecords(ctx, offsets)
	if err != nil {
		return err
	}
	if err := answers.Error(); err != nil {
		return err
	}
	if low := answers[name][partition].LowWatermark; low != before {
		return fmt.Errorf("low watermark %d", low)
	}
	return nil
}

func (c *client) DeleteTopic(ctx context.Context, name string) error {
	answers, err := c.admin.DeleteTopics(ctx, name)
	if err != nil {
		return err
	}
	return answers.Error()
}

func (c *client) DescribeCluster(ctx context.Context) (check.Cluster, error) {
	metadata, err := c.admin.BrokerMetadata(ctx)
	cluster := check.Cluster{ID: metadata.Cluster, Controller: metadata.Controller}
	for _, broker := range metadata.Brokers {
		cluster.Brokers = append(cluster.Brokers, check.Broker{ID: broker.NodeID, Host: broker.Host, Port: broker.Port})
	}
	return cluster, err
}

func (c *client) Offsets(ctx context.Context, name string, partition int32) (int64, int64, error) {
	earliest, err := c.admin.ListStartOffsets(ctx, name)
	if err == nil {
		err = earliest.Error()
	}
	if err != nil {
		return 0, 0, err
	}
	latest, err := c.admin.ListEndOffsets(ctx, name)
	if err == nil {
		err = latest.Error()
	}
	return earliest[name][partition].Offset, latest[name][partition].Offset, err
}

func (c *client) OffsetForTime(ctx context.Context, name string, partition int32, t time.Time) (int64, error) {
	found, err := c.admin.ListOffsetsAfterMilli(ctx, t.UnixMilli(), name)
	if err == nil {
		err = found.Error()
	}
	return found[name][partition].Offset, err
}

type producer struct{ kgo *kgo.Client }

func (c *client) NewProducer(_ context.Context, options check.ProducerOptions) (check.Producer, error) {
	codecs := map[string]kgo.CompressionCodec{
		"none":   kgo.NoCompression(),
		"gzip":   kgo.GzipCompression(),
		"snappy": kgo.SnappyCompression(),
		"lz4":    kgo.Lz4Compression(),
		"zstd":   kgo.ZstdCompression(),
	}
	given := []kgo.Opt{
		kgo.ProducerBatchCompression(codecs[options.Codec]),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(3 << 20),
		kgo.ProducerLinger(20 * time.Millisecond), // one batch per Send
	}
	switch options.Acks {
	case 0:
		given = append(given, kgo.RequiredAcks(kgo.NoAck()))
	case 1:
		given = append(given, kgo.RequiredAcks(kgo.LeaderAck()))
	default:
		given = append(given, kgo.RequiredAcks(kgo.AllISRAcks()))
	}
	if !options.Idempotent {
		given = append(given, kgo.DisableIdempotentWrite())
	}
	made, err := c.with(given...)
	return &producer{kgo: made}, err
}

func (p *producer) Send(ctx context.Context, topic string, partition int32, records []check.Record) ([]int64, error) {
	var out []*kgo.Record
	for _, r := range records {
		record := &kgo.Record{Topic: topic, Partition: partition, Key: r.Key, Value: r.Value, Timestamp: r.Time}
		for _, header := range r.Headers {
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: header.Key, Value: header.Value})
		}
		out = append(out, record)
	}
	results := p.kgo.ProduceSync(ctx, out...)
	if err := results.FirstErr(); err != nil {
		return nil, err
	}
	var offsets []int64
	for _, record := range out {
		offsets = append(offsets, record.Offset)
	}
	return offsets, nil
}

func (p *producer) Close() { p.kgo.Close() }

type reader struct {
	kgo  *kgo.Client
	left []check.Record
}

func (c *client) NewReader(ctx context.Context, name string, partition int32, from int64) (check.Reader, error) {
	if from == check.Latest {
		_, latest, err := c.Offsets(ctx, name, partition)
		if err != nil {
			return nil, err
		}
		from = latest
	}
	at := kgo.NewOffset().At(from)
	if from == check.Earliest {
		at = kgo.NewOffset().AtStart()
	}
	made, err := c.with(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: {partition: at}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxWait(100*time.Millisecond),
	)
	return &reader{kgo: made}, err
}

func (r *reader) Read(ctx context.Context, count int) ([]check.Record, error) {
	for len(r.left) < count {
		fetches := r.kgo.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			got := r.left
			r.left = nil
			return got, err
		}
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		for _, record := range fetches.Records() {
			got := check.Record{Offset: record.Offset, Key: record.Key, Value: record.Value, Time: record.Timestamp}
			for _, header := range record.Headers {
				got.Headers = append(got.Headers, check.Header{Key: header.Key, Value: header.Value})
			}
			r.left = append(r.left, got)
		}
	}
	got := r.left[:count]
	r.left = r.left[count:]
	return got, nil
}

func (r *reader) Close() { r.kgo.Close() }

func main() { check.Main("franz-go", "github.com/twmb/franz-go", newClient) }
