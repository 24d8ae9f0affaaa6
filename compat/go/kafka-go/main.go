// kafka-go: runs the checks of ../check with github.com/segmentio/kafka-go.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"ottla/compat/check"

	"github.com/segmentio/kafka-go"
)

type client struct {
	bootstrap string
	timeout   time.Duration
	kafka     *kafka.Client
	transport *kafka.Transport
}

func newClient(bootstrap string, timeout time.Duration) (check.Client, error) {
	transport := &kafka.Transport{DialTimeout: timeout, MetadataTTL: 500 * time.Millisecond}
	base := &kafka.Client{Addr: kafka.TCP(bootstrap), Timeout: timeout, Transport: transport}
	return &client{bootstrap, timeout, base, transport}, nil
}

func (c *client) Close() { c.transport.CloseIdleConnections() }

// NullBlind says that kafka.Reader returns empty keys and values as null. (On the wire they are right.)
func (c *client) NullBlind() {}

func (c *client) CreateTopic(ctx context.Context, name string, partitions int32, configs map[string]string) error {
	topic := kafka.TopicConfig{Topic: name, NumPartitions: int(partitions), ReplicationFactor: 1}
	for key, value := range configs {
		topic.ConfigEntries = append(topic.ConfigEntries, kafka.ConfigEntry{ConfigName: key, ConfigValue: value})
	}
	answer, err := c.kafka.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{topic}})
	if err != nil {
		return err
	}
	return answer.Errors[name]
}

func (c *client) Exists(err error) bool { return errors.Is(err, kafka.TopicAlreadyExists) }

func (c *client) Topics(ctx context.Context) ([]string, error) {
	answer, err := c.kafka.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, topic := range answer.Topics {
		names = append(names, topic.Name)
	}
	return names, nil
}

func ids(brokers []kafka.Broker) []int32 {
	var list []int32
	for _, broker := range brokers {
		list = append(list, int32(broker.ID))
	}
	return list
}

func (c *client) DescribeTopic(ctx context.Context, name string) ([]check.Partition, error) {
	answer, err := c.kafka.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{name}})
	if err != nil {
		return nil, err
	}
	if len(answer.Topics) != 1 {
		return nil, fmt.Errorf("%d topics instead of 1", len(answer.Topics))
	}
	if err := answer.Topics[0].Error; err != nil {
		return nil, err
	}
	rows := make([]check.Partition, len(answer.Topics[0].Partitions))
	for _, p := range answer.Topics[0].Partitions {
		if p.ID < 0 || p.ID >= len(rows) {
			return nil, fmt.Errorf("partition %d of %d", p.ID, len(rows))
		}
		rows[p.ID] = check.Partition{
			Index: int32(p.ID), Leader: int32(p.Leader.ID), Replicas: ids(p.Replicas), ISR: ids(p.Isr),
		}
	}
	return rows, nil
}

func (c *client) DescribeConfigs(ctx context.Context, name string) (map[string]string, error) {
	resource := kafka.DescribeConfigRequestResource{ResourceType: kafka.ResourceTypeTopic, ResourceName: name}
	request := &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{resource}}
	answer, err := c.kafka.DescribeConfigs(ctx, request)
	if err != nil {
		return nil, err
	}
	if len(answer.Resources) != 1 {
		return nil, fmt.Errorf("%d resources instead of 1", len(answer.Resources))
	}
	configs := map[string]string{}
	for _, entry := range answer.Resources[0].ConfigEntries {
		configs[entry.ConfigName] = entry.ConfigValue
	}
	return configs, answer.Resources[0].Error
}

func (c *client) AlterConfigs(ctx context.Context, name string, configs map[string]string) error {
	resource := kafka.IncrementalAlterConfigsRequestResource{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: name,
	}
	for key, value := range configs {
		resource.Configs = append(resource.Configs, kafka.IncrementalAlterConfigsRequestConfig{
			Name: key, Value: value, ConfigOperation: kafka.ConfigOperationSet,
		})
	}
	answer, err := c.kafka.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{resource},
	})
	if err != nil {
		return err
	}
	for _, row := range answer.Resources {
		if row.Error != nil {
			return row.Error
		}
	}
	return nil
}

func (c *client) Refused(err error) bool { return errors.Is(err, kafka.InvalidConfiguration) }

func (c *client) CreatePartitions(ctx context.Context, name string, total int32) error {
	answer, err := c.kafka.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{
		Topics: []kafka.TopicPartitionsConfig{{Name: name, Count: total}},
	})
	if err != nil {
		return err
	}
	return answer.Errors[name]
}

func (c *client) DeleteRecords(context.Context, string, int32, int64) error {
	return check.NotAvailable("kafka-go has no DeleteRecords")
}

func (c *client) DeleteTopic(ctx context.Context, name string) error {
	answer, err := c.kafka.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{name}})
	if err != nil {
		return err
	}
	return answer.Errors[name]
}

func (c *client) DescribeCluster(ctx context.Context) (check.Cluster, error) {
	answer, err := c.kafka.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return check.Cluster{}, err
	}
	cluster := check.Cluster{ID: answer.ClusterID, Controller: int32(answer.Controller.ID)}
	for _, broker := range answer.Brokers {
		cluster.Brokers = append(cluster.Brokers, check.Broker{
			ID: int32(broker.ID), Host: broker.Host, Port: int32(broker.Port),
		})
	}
	return cluster, nil
}

func (c *client) offsets(ctx context.Context, name string, partition int32, request kafka.OffsetRequest) (
	kafka.PartitionOffsets, error,
) {
	answer, err := c.kafka.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{name: {request}},
	})
	if err != nil {
		return kafka.PartitionOffsets{}, err
	}
	for _, row := range answer.Topics[name] {
		if row.Partition == int(partition) {
			return row, row.Error
		}
	}
	return kafka.PartitionOffsets{}, errors.New("no row for the partition")
}

func (c *client) Offsets(ctx context.Context, name string, partition int32) (int64, int64, error) {
	earliest, err := c.offsets(ctx, name, partition, kafka.FirstOffsetOf(int(partition)))
	if err != nil {
		return 0, 0, err
	}
	latest, err := c.offsets(ctx, name, partition, kafka.LastOffsetOf(int(partition)))
	return earliest.FirstOffset, latest.LastOffset, err
}

func (c *client) OffsetForTime(ctx context.Context, name string, partition int32, t time.Time) (int64, error) {
	found, err := c.offsets(ctx, name, partition, kafka.TimeOffsetOf(int(partition), t))
	if err != nil {
		return 0, err
	}
	for offset := range found.Offsets {
		return offset, nil
	}
	return -1, nil
}

// The library's Writer chooses the partition through a balancer; this one takes it from the message.
type manual struct{ partition int }

func (m manual) Balance(kafka.Message, ...int) int { return m.partition }

type producer struct {
	options check.ProducerOptions
	client  *client
	writers map[int32]*kafka.Writer
}

func (c *client) NewProducer(_ context.Context, options check.ProducerOptions) (check.Producer, error) {
	if options.Idempotent {
		return nil, check.NotAvailable("kafka-go has no idempotent producer")
	}
	return &producer{options, c, map[int32]*kafka.Writer{}}, nil
}

func (p *producer) writer(partition int32) *kafka.Writer {
	if writer := p.writers[partition]; writer != nil {
		return writer
	}
	writer := &kafka.Writer{
		Addr:         kafka.TCP(p.client.bootstrap),
		Balancer:     manual{int(partition)},
		BatchTimeout: 20 * time.Millisecond, // one batch per Send
		BatchBytes:   3 << 20,
		ReadTimeout:  p.client.timeout,
		WriteTimeout: p.client.timeout,
		RequiredAcks: kafka.RequiredAcks(p.options.Acks),
		Compression: map[string]kafka.Compression{
			"none": 0, "gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd,
		}[p.options.Codec],
		Transport: p.client.transport,
	}
	p.writers[partition] = writer
	return writer
}

func (p *producer) Send(ctx context.Context, topic string, partition int32, records []check.Record) ([]int64, error) {
	var out []kafka.Message
	for _, r := range records {
		message := kafka.Message{Topic: topic, Key: r.Key, Value: r.Value, Time: r.Time}
		for _, header := range r.Headers {
			message.Headers = append(message.Headers, kafka.Header{Key: header.Key, Value: header.Value})
		}
		out = append(out, message)
	}
	// The Writer does not tell offsets.
	return nil, p.writer(partition).WriteMessages(ctx, out...)
}

func (p *producer) Close() {
	for _, writer := range p.writers {
		_ = writer.Close()
	}
}

type reader struct{ kafka *kafka.Reader }

func (c *client) NewReader(ctx context.Context, name string, partition int32, from int64) (check.Reader, error) {
	if from == check.Latest {
		_, latest, err := c.Offsets(ctx, name, partition)
		if err != nil {
			return nil, err
		}
		from = latest
	}
	if from == check.Earliest {
		from = kafka.FirstOffset
	}
	made := kafka.NewReader(kafka.ReaderConfig{
		Brokers:        []string{c.bootstrap},
		Topic:          name,
		Partition:      int(partition),
		MinBytes:       1,
		MaxBytes:       8 << 20,
		MaxWait:        100 * time.Millisecond,
		ReadBackoffMax: 200 * time.Millisecond,
		Dialer:         &kafka.Dialer{Timeout: c.timeout, Resolver: &net.Resolver{}},
	})
	return &reader{made}, made.SetOffset(from)
}

func (r *reader) Read(ctx context.Context, count int) ([]check.Record, error) {
	var got []check.Record
	var failure error
	for len(got) < count {
		message, err := r.kafka.ReadMessage(ctx)
		if ctx.Err() != nil {
			return got, errors.Join(ctx.Err(), failure)
		}
		if err != nil {
			// It reports a lost connection, and goes on where it was when asked again.
			failure = err
			continue
		}
		record := check.Record{Offset: message.Offset, Key: message.Key, Value: message.Value, Time: message.Time}
		for _, header := range message.Headers {
			record.Headers = append(record.Headers, check.Header{Key: header.Key, Value: header.Value})
		}
		got = append(got, record)
	}
	return got, nil
}

func (r *reader) Close() { _ = r.kafka.Close() }

func main() { check.Main("kafka-go", "github.com/segmentio/kafka-go", newClient) }
