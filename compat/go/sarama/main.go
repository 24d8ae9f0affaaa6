// sarama: runs the checks of ../check with github.com/IBM/sarama.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"strconv"
	"time"

	"ottla/compat/check"

	"github.com/IBM/sarama"
)

type client struct {
	bootstrap string
	timeout   time.Duration
	admin     sarama.ClusterAdmin
}

func newClient(bootstrap string, timeout time.Duration) (check.Client, error) {
	sarama.Logger = log.New(io.Discard, "", 0)
	return &client{bootstrap: bootstrap, timeout: timeout}, nil
}

func (c *client) config() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Net.DialTimeout = c.timeout
	config.Net.ReadTimeout = c.timeout
	config.Admin.Timeout = c.timeout
	config.Metadata.Timeout = c.timeout
	return config
}

func (c *client) connect() (sarama.ClusterAdmin, error) {
	if c.admin == nil {
		admin, err := sarama.NewClusterAdmin([]string{c.bootstrap}, c.config())
		if err != nil {
			return nil, err
		}
		c.admin = admin
	}
	return c.admin, nil
}

func (c *client) Close() {
	if c.admin != nil {
		_ = c.admin.Close()
	}
}

func (c *client) CreateTopic(_ context.Context, name string, partitions int32, configs map[string]string) error {
	admin, err := c.connect()
	if err != nil {
		return err
	}
	detail := &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: map[string]*string{}}
	for key, value := range configs {
		detail.ConfigEntries[key] = &value
	}
	return admin.CreateTopic(name, detail, false)
}

func (c *client) Exists(err error) bool { return errors.Is(err, sarama.ErrTopicAlreadyExists) }

func (c *client) Topics(context.Context) ([]string, error) {
	admin, err := c.connect()
	if err != nil {
		return nil, err
	}
	topics, err := admin.ListTopics()
	var names []string
	for name := range topics {
		names = append(names, name)
	}
	return names, err
}

func (c *client) DescribeTopic(_ context.Context, name string) ([]check.Partition, error) {
	admin, err := c.connect()
	if err != nil {
		return nil, err
	}
	topics, err := admin.DescribeTopics([]string{name})
	if err != nil {
		return nil, err
	}
	if len(topics) != 1 {
		return nil, fmt.Errorf("%d topics instead of 1", len(topics))
	}
	if topics[0].Err != sarama.ErrNoError {
		return nil, topics[0].Err
	}
	rows := make([]check.Partition, len(topics[0].Partitions))
	for _, p := range topics[0].Partitions {
		if p.ID < 0 || int(p.ID) >= len(rows) {
			return nil, fmt.Errorf("partition %d of %d", p.ID, len(rows))
		}
		rows[p.ID] = check.Partition{Index: p.ID, Leader: p.Leader, Replicas: p.Replicas, ISR: p.Isr}
	}
	return rows, nil
}

func (c *client) DescribeConfigs(_ context.Context, name string) (map[string]string, error) {
	admin, err := c.connect()
	if err != nil {
		return nil, err
	}
	entries, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: name})
	configs := map[string]string{}
	for _, entry := range entries {
		configs[entry.Name] = entry.Value
	}
	return configs, err
}

func (c *client) AlterConfigs(_ context.Context, name string, configs map[string]string) error {
	admin, err := c.connect()
	if err != nil {
		return err
	}
	entries := map[string]sarama.IncrementalAlterConfigsEntry{}
	for key, value := range configs {
		entries[key] = sarama.IncrementalAlterConfigsEntry{
			Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value,
		}
	}
	return admin.IncrementalAlterConfig(sarama.TopicResource, name, entries, false)
}

func (c *client) Refused(err error) bool { return errors.Is(err, sarama.ErrInvalidConfig) }

func (c *client) CreatePartitions(_ context.Context, name string, total int32) error {
	admin, err := c.connect()
	if err != nil {
		return err
	}
	return admin.CreatePartitions(name, total, nil, false)
}

func (c *client) DeleteRecords(_ context.Context, name string, partition int32, before int64) error {
	admin, err := c.connect()
	if err != nil {
		return err
	}
	return admin.DeleteRecords(name, map[int32]int64{partition: before})
}

func (c *client) DeleteTopic(_ context.Context, name string) error {
	admin, err := c.connect()
	if err != nil {
		return err
	}
	return admin.DeleteTopic(name)
}

func (c *client) DescribeCluster(context.Context) (check.Cluster, error) {
	admin, err := c.connect()
	if err != nil {
		return check.Cluster{}, err
	}
	brokers, controller, err := admin.DescribeCluster()
	cluster := check.Cluster{Controller: controller}
	for _, broker := range brokers {
		host, text, err := net.SplitHostPort(broker.Addr())
		if err != nil {
			return cluster, err
		}
		port, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return cluster, err
		}
		cluster.Brokers = append(cluster.Brokers, check.Broker{ID: broker.ID(), Host: host, Port: int32(port)})
	}
	return cluster, err
}

func (c *client) offset(name string, partition int32, at int64) (int64, error) {
	base, err := sarama.NewClient([]string{c.bootstrap}, c.config())
	if err != nil {
		return 0, err
	}
	defer base.Close()
	return base.GetOffset(name, partition, at)
}

func (c *client) Offsets(_ context.Context, name string, partition int32) (int64, int64, error) {
	earliest, err := c.offset(name, partition, sarama.OffsetOldest)
	if err != nil {
		return 0, 0, err
	}
	latest, err := c.offset(name, partition, sarama.OffsetNewest)
	return earliest, latest, err
}

func (c *client) OffsetForTime(_ context.Context, name string, partition int32, t time.Time) (int64, error) {
	return c.offset(name, partition, t.UnixMilli())
}

type producer struct{ sync sarama.SyncProducer }

func (c *client) NewProducer(_ context.Context, options check.ProducerOptions) (check.Producer, error) {
	config := c.config()
	config.Producer.Compression = map[string]sarama.CompressionCodec{
		"none":   sarama.CompressionNone,
		"gzip":   sarama.CompressionGZIP,
		"snappy": sarama.CompressionSnappy,
		"lz4":    sarama.CompressionLZ4,
		"zstd":   sarama.CompressionZSTD,
	}[options.Codec]
	config.Producer.RequiredAcks = sarama.RequiredAcks(options.Acks)
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.Return.Successes = true
	config.Producer.Timeout = c.timeout
	config.Producer.Retry.Max = 50 // 100 ms apart: a broker that has just started again may not lead yet
	config.Producer.MaxMessageBytes = 3 << 20
	config.Producer.Flush.Frequency = 20 * time.Millisecond // one batch per Send
	if options.Idempotent {
		config.Producer.Idempotent = true
		config.Net.MaxOpenRequests = 1
	}
	made, err := sarama.NewSyncProducer([]string{c.bootstrap}, config)
	if err != nil {
		return nil, err
	}
	return &producer{made}, nil
}

// encode keeps null (no encoder) apart from empty.
func encode(value []byte) sarama.Encoder {
	if value == nil {
		return nil
	}
	return sarama.ByteEncoder(value)
}

func (p *producer) Send(_ context.Context, topic string, partition int32, records []check.Record) ([]int64, error) {
	var out []*sarama.ProducerMessage
	for _, r := range records {
		message := &sarama.ProducerMessage{
			Topic: topic, Partition: partition, Key: encode(r.Key), Value: encode(r.Value), Timestamp: r.Time,
		}
		for _, header := range r.Headers {
			message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(header.Key), Value: header.Value})
		}
		out = append(out, message)
	}
	if err := p.sync.SendMessages(out); err != nil {
		var each sarama.ProducerErrors
		if errors.As(err, &each) && len(each) > 0 {
			return nil, each[0].Err
		}
		return nil, err
	}
	var offsets []int64
	for _, message := range out {
		offsets = append(offsets, message.Offset)
	}
	return offsets, nil
}

func (p *producer) Close() { _ = p.sync.Close() }

type reader struct {
	consumer  sarama.Consumer
	partition sarama.PartitionConsumer
}

func (c *client) NewReader(_ context.Context, name string, partition int32, from int64) (check.Reader, error) {
	config := c.config()
	config.Consumer.MaxWaitTime = 100 * time.Millisecond
	config.Consumer.Retry.Backoff = 200 * time.Millisecond
	consumer, err := sarama.NewConsumer([]string{c.bootstrap}, config)
	if err != nil {
		return nil, err
	}
	// sarama's OffsetOldest and OffsetNewest are the numbers of check.Earliest and check.Latest; both are resolved here.
	reading, err := consumer.ConsumePartition(name, partition, from)
	if err != nil {
		_ = consumer.Close()
		return nil, err
	}
	return &reader{consumer, reading}, nil
}

func (r *reader) Read(ctx context.Context, count int) ([]check.Record, error) {
	var got []check.Record
	for len(got) < count {
		select {
		case <-ctx.Done():
			return got, ctx.Err()
		case message, open := <-r.partition.Messages():
			if !open {
				return got, errors.New("the partition consumer has ended")
			}
			record := check.Record{
				Offset: message.Offset, Key: message.Key, Value: message.Value, Time: message.Timestamp,
			}
			for _, header := range message.Headers {
				record.Headers = append(record.Headers, check.Header{Key: string(header.Key), Value: header.Value})
			}
			got = append(got, record)
		}
	}
	return got, nil
}

func (r *reader) Close() {
	_ = r.partition.Close()
	_ = r.consumer.Close()
}

func main() { check.Main("sarama", "github.com/IBM/sarama", newClient) }
