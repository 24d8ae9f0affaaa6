// Package check holds the named checks, written once for the Go clients; each client's program adapts its library to
// Client and calls Main. It prints one JSON line per check for `cargo xtask compat`, as ../../README.md describes.
// The Python, Java and JavaScript programs do the same checks.
package check

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Where to start reading, besides an offset.
const (
	Earliest int64 = -2
	Latest   int64 = -1
)

// How many records one batch holds.
const batchSize = 50

// Record is what is written and what must come back. A nil slice is Kafka's null.
type Record struct {
	Offset  int64
	Key     []byte
	Value   []byte
	Headers []Header
	Time    time.Time // zero: the client chooses
}

// Header is one header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Partition is one row of a topic's description.
type Partition struct {
	Index    int32
	Leader   int32
	Replicas []int32
	ISR      []int32
}

// Broker is one row of the cluster's description.
type Broker struct {
	ID   int32
	Host string
	Port int32
}

// Cluster is the cluster's description; ID is empty and Controller -1 when the client does not tell.
type Cluster struct {
	ID         string
	Brokers    []Broker
	Controller int32
}

// ProducerOptions are those that the checks vary.
type ProducerOptions struct {
	Codec      string // none, gzip, snappy, lz4, zstd
	Acks       int    // 0, 1, -1
	Idempotent bool
}

// Producer writes. One call of Send is one batch, as far as sizes allow, and returns when it is acknowledged; the
// offsets are nil when the client does not tell them.
type Producer interface {
	Send(ctx context.Context, topic string, partition int32, records []Record) ([]int64, error)
	Close()
}

// Reader reads one partition onwards. Read returns what came when ctx ends, with ctx's error, if that is less than
// count.
type Reader interface {
	Read(ctx context.Context, count int) ([]Record, error)
	Close()
}

// Client is what a client's program implements. Any method may return NotAvailable.
type Client interface {
	CreateTopic(ctx context.Context, name string, partitions int32, configs map[string]string) error
	// Exists says whether an error of CreateTopic means that the topic is there already.
	Exists(err error) bool
	Topics(ctx context.Context) ([]string, error)
	DescribeTopic(ctx context.Context, name string) ([]Partition, error)
	DescribeConfigs(ctx context.Context, name string) (map[string]string, error)
	AlterConfigs(ctx context.Context, name string, configs map[string]string) error
	// Refused says whether an error of AlterConfigs means that the value is not valid.
	Refused(err error) bool
	CreatePartitions(ctx context.Context, name string, total int32) error
	DeleteRecords(ctx context.Context, name string, partition int32, before int64) error
	DeleteTopic(ctx context.Context, name string) error
	DescribeCluster(ctx context.Context) (Cluster, error)
	Offsets(ctx context.Context, name string, partition int32) (earliest, latest int64, err error)
	// OffsetForTime returns the first offset at or after t, or the end offset, or -1, when there is none.
	OffsetForTime(ctx context.Context, name string, partition int32, t time.Time) (int64, error)
	NewProducer(ctx context.Context, options ProducerOptions) (Producer, error)
	// NewReader resolves Latest before it returns.
	NewReader(ctx context.Context, name string, partition int32, from int64) (Reader, error)
	GroupClient
	Close()
}

// NotAvailable is the error that says that the client cannot do this at all, and why.
type NotAvailable string

func (reason NotAvailable) Error() string { return string(reason) }

type suite struct {
	client    Client
	bootstrap string
	prefix    string
	timeout   time.Duration
	input     *bufio.Reader
}

func (s *suite) newTopic(
	ctx context.Context, name string, partitions int32, configs map[string]string,
) (string, error) {
	topic := s.prefix + "-" + name
	if err := s.client.CreateTopic(ctx, topic, partitions, configs); err != nil {
		return topic, err
	}
	// Kafka answers when its controller knows the topic, which may be before the broker does.
	for {
		rows, err := s.client.DescribeTopic(ctx, topic)
		if err == nil && len(rows) == int(partitions) {
			return topic, nil
		}
		select {
		case <-ctx.Done():
			return topic, fmt.Errorf("created, but partitions are %v: %v", rows, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// batch makes records that compress well and are all different, one second apart, an hour ago.
func batch(tag string, first, count int) []Record {
	base := time.UnixMilli(time.Now().Add(-time.Hour).Unix() * 1000)
	records := make([]Record, 0, count)
	for i := first; i < first+count; i++ {
		records = append(records, Record{
			Key:   fmt.Appendf(nil, "%s key %d", tag, i),
			Value: fmt.Appendf(nil, "%s value %d %s", tag, i, strings.Repeat("the same words again and again, ", 6)),
			Time:  base.Add(time.Duration(i) * time.Second),
		})
	}
	return records
}

func show(value []byte) string {
	if value == nil {
		return "null"
	}
	if len(value) > 100 {
		return fmt.Sprintf("%q... (%d bytes)", value[:100], len(value))
	}
	return fmt.Sprintf("%q", value)
}

// NullBlind is what a client implements that reads null as empty or the other way round.
type NullBlind interface{ NullBlind() }

func (s *suite) sameBytes(a, b []byte) bool {
	_, blind := s.client.(NullBlind)
	return bytes.Equal(a, b) && (blind || (a == nil) == (b == nil))
}

// same compares every offset, key, value, header and given timestamp, in order, nothing missing and nothing more.
func (s *suite) same(got, want []Record, first int64) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d records instead of %d", len(got), len(want))
	}
	for i, have := range got {
		expect := want[i]
		switch at := first + int64(i); {
		case have.Offset != at:
			return fmt.Errorf("offset %d instead of %d", have.Offset, at)
		case !s.sameBytes(have.Key, expect.Key):
			return fmt.Errorf("key at %d: got %s, expected %s", at, show(have.Key), show(expect.Key))
		case !s.sameBytes(have.Value, expect.Value):
			return fmt.Errorf("value at %d: got %s, expected %s", at, show(have.Value), show(expect.Value))
		case !expect.Time.IsZero() && have.Time.UnixMilli() != expect.Time.UnixMilli():
			return fmt.Errorf("timestamp at %d: got %v, expected %v", at, have.Time, expect.Time)
		case !slices.EqualFunc(have.Headers, expect.Headers, func(a, b Header) bool {
			return a.Key == b.Key && s.sameBytes(a.Value, b.Value)
		}):
			return fmt.Errorf("headers at %d: got %q, expected %q", at, have.Headers, expect.Headers)
		}
	}
	return nil
}

func (s *suite) send(ctx context.Context, topic string, records []Record, options ProducerOptions) error {
	producer, err := s.client.NewProducer(ctx, options)
	if err != nil {
		return err
	}
	defer producer.Close()
	offsets, err := producer.Send(ctx, topic, 0, records)
	if err != nil || offsets == nil || options.Acks == 0 {
		return err
	}
	for i, offset := range offsets {
		if offset != int64(i) {
			return fmt.Errorf("record %d was acknowledged at offset %d", i, offset)
		}
	}
	return nil
}

func (s *suite) read(ctx context.Context, topic string, partition int32, from int64, count int) ([]Record, error) {
	reader, err := s.client.NewReader(ctx, topic, partition, from)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	return readAll(ctx, reader, count)
}

func readAll(ctx context.Context, reader Reader, count int) ([]Record, error) {
	got, err := reader.Read(ctx, count)
	if err != nil {
		return nil, fmt.Errorf("%d of %d records: %w", len(got), count, err)
	}
	return got, nil
}

// quiet reads what comes within a while.
func quiet(ctx context.Context, reader Reader, while time.Duration) ([]Record, error) {
	ctx, cancel := context.WithTimeout(ctx, while)
	defer cancel()
	got, err := reader.Read(ctx, 1<<20)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	return got, err
}

func (s *suite) readSame(ctx context.Context, topic string, from int64, want []Record, first int64) error {
	got, err := s.read(ctx, topic, 0, from, len(want))
	if err != nil {
		return err
	}
	return s.same(got, want, first)
}

// filled makes a topic with one compressed batch.
func (s *suite) filled(ctx context.Context, name string) (string, []Record, error) {
	records := batch(name, 0, batchSize)
	topic, err := s.newTopic(ctx, name, 1, nil)
	if err != nil {
		return "", nil, err
	}
	return topic, records, s.send(ctx, topic, records, ProducerOptions{Codec: "gzip", Acks: -1})
}

func (s *suite) topicCreate(ctx context.Context) (string, error) {
	topic, err := s.newTopic(ctx, "create", 3, map[string]string{"retention.ms": "86400000"})
	if err != nil {
		return "", err
	}
	if err := s.expectPartitions(ctx, topic, 3); err != nil {
		return "", err
	}
	detail := "3 partitions, and refused the second time"
	configs, err := s.client.DescribeConfigs(ctx, topic)
	var unavailable NotAvailable
	switch {
	case errors.As(err, &unavailable):
	case err != nil:
		return "", err
	case configs["retention.ms"] != "86400000":
		return "", fmt.Errorf("retention.ms is %q", configs["retention.ms"])
	default:
		detail = "3 partitions, its config, and refused the second time"
	}
	switch err := s.client.CreateTopic(ctx, topic, 3, nil); {
	case err == nil:
		return "", errors.New("created a second time")
	case !s.client.Exists(err):
		return "", err
	}
	return detail, nil
}

// expectPartitions waits for that many, 0 to n-1: an answer to a change may come before each broker has applied it.
func (s *suite) expectPartitions(ctx context.Context, topic string, n int) error {
	for {
		rows, err := s.client.DescribeTopic(ctx, topic)
		if err != nil {
			return err
		}
		right := len(rows) == n
		for i, row := range rows {
			right = right && row.Index == int32(i)
		}
		if right {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("partitions are %v", rows)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *suite) produce(codec string, acks int) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		topic, err := s.newTopic(ctx, fmt.Sprintf("produce-%s-%s", codec, acksName(acks)), 1, nil)
		if err != nil {
			return "", err
		}
		records := batch(codec, 0, batchSize)
		if err := s.send(ctx, topic, records, ProducerOptions{Codec: codec, Acks: acks}); err != nil {
			return "", err
		}
		return fmt.Sprintf("%d records", batchSize), s.readSame(ctx, topic, 0, records, 0)
	}
}

func (s *suite) idempotent(ctx context.Context) (string, error) {
	const batches = 8
	topic, err := s.newTopic(ctx, "idempotent", 1, nil)
	if err != nil {
		return "", err
	}
	producer, err := s.client.NewProducer(ctx, ProducerOptions{Codec: "none", Acks: -1, Idempotent: true})
	if err != nil {
		return "", err
	}
	defer producer.Close()
	records := batch("idempotent", 0, batches*batchSize)
	for part := range slices.Chunk(records, batchSize) {
		if _, err := producer.Send(ctx, topic, 0, part); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d records in %d batches", len(records), batches), s.readSame(ctx, topic, 0, records, 0)
}

func (s *suite) headers(ctx context.Context) (string, error) {
	bytesAbove := make([]byte, 128)
	for i := range bytesAbove {
		bytesAbove[i] = byte(128 + i)
	}
	key := []byte("k")
	return s.roundTrip(ctx, "headers", nil, []Record{
		{Key: key, Value: []byte("one"), Headers: []Header{{"a", []byte("1")}}},
		{Key: key, Value: []byte("order"), Headers: []Header{{"b", []byte("1")}, {"a", []byte("2")}, {"b", []byte("3")}}},
		{Key: key, Value: []byte("empty value"), Headers: []Header{{"empty", []byte{}}}},
		{Key: key, Value: []byte("null value"), Headers: []Header{{"null", nil}}},
		{Key: key, Value: []byte("not ASCII"), Headers: []Header{{"ключ", []byte("значение")}, {"bytes", bytesAbove}}},
		{Key: key, Value: []byte("none")},
	})
}

func (s *suite) nullEmpty(ctx context.Context) (string, error) {
	kinds := [][]byte{nil, {}, []byte("x")}
	var records []Record
	for _, key := range kinds {
		for _, value := range kinds {
			records = append(records, Record{Key: key, Value: value})
		}
	}
	return s.roundTrip(ctx, "null-empty", nil, records)
}

func (s *suite) large(ctx context.Context) (string, error) {
	var records []Record
	for i, size := range []int{1_000_000, 10, 2_000_000, 1_000_000} {
		value := make([]byte, size) // incompressible, and the same in every run
		if _, err := rand.New(rand.NewSource(int64(i))).Read(value); err != nil {
			return "", err
		}
		records = append(records, Record{Key: []byte("k"), Value: value})
	}
	return s.roundTrip(ctx, "large", map[string]string{"max.message.bytes": "4194304"}, records)
}

func (s *suite) roundTrip(
	ctx context.Context, name string, configs map[string]string, records []Record,
) (string, error) {
	topic, err := s.newTopic(ctx, name, 1, configs)
	if err != nil {
		return "", err
	}
	if err := s.send(ctx, topic, records, ProducerOptions{Codec: "none", Acks: -1}); err != nil {
		return "", err
	}
	detail := fmt.Sprintf("%d records", len(records))
	if _, blind := s.client.(NullBlind); blind {
		detail += "; the client's reader does not tell null from empty"
	}
	return detail, s.readSame(ctx, topic, 0, records, 0)
}

func (s *suite) consumeStart(ctx context.Context) (string, error) {
	topic, records, err := s.filled(ctx, "start")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d records", batchSize), s.readSame(ctx, topic, Earliest, records, 0)
}

func (s *suite) consumeMiddle(ctx context.Context) (string, error) {
	topic, records, err := s.filled(ctx, "middle")
	if err != nil {
		return "", err
	}
	for _, from := range []int64{1, 23, batchSize - 1} {
		if err := s.readSame(ctx, topic, from, records[from:], from); err != nil {
			return "", fmt.Errorf("from %d: %w", from, err)
		}
	}
	return fmt.Sprintf("from 1, 23 and %d of %d", batchSize-1, batchSize), nil
}

func (s *suite) consumeTimestamp(ctx context.Context) (string, error) {
	topic, records, err := s.filled(ctx, "timestamp")
	if err != nil {
		return "", err
	}
	for _, row := range []struct {
		at     time.Time
		expect int64
	}{
		{records[0].Time.Add(-time.Millisecond), 0},
		{records[0].Time, 0},
		{records[20].Time, 20},
		{records[20].Time.Add(time.Millisecond), 21},
		{records[batchSize-1].Time, batchSize - 1},
		{records[batchSize-1].Time.Add(time.Millisecond), -1},
	} {
		offset, err := s.client.OffsetForTime(ctx, topic, 0, row.at)
		if err != nil {
			return "", err
		}
		if offset != row.expect && !(row.expect == -1 && offset == batchSize) {
			return "", fmt.Errorf("offset at %v is %d instead of %d", row.at, offset, row.expect)
		}
	}
	offset, err := s.client.OffsetForTime(ctx, topic, 0, records[20].Time.Add(-500*time.Millisecond))
	if err != nil {
		return "", err
	}
	return "before, at, between and after, inside one compressed batch",
		s.readSame(ctx, topic, offset, records[20:], 20)
}

func (s *suite) consumeEnd(ctx context.Context) (string, error) {
	topic, _, err := s.filled(ctx, "end")
	if err != nil {
		return "", err
	}
	reader, err := s.client.NewReader(ctx, topic, 0, Latest)
	if err != nil {
		return "", err
	}
	defer reader.Close()
	if early, err := quiet(ctx, reader, 500*time.Millisecond); err != nil || len(early) > 0 {
		return "", fmt.Errorf("%d records before anything new: %v", len(early), err)
	}
	producer, err := s.client.NewProducer(ctx, ProducerOptions{Codec: "none", Acks: -1})
	if err != nil {
		return "", err
	}
	defer producer.Close()
	want := batch("new", 0, 1)
	if _, err := producer.Send(ctx, topic, 0, want); err != nil {
		return "", err
	}
	got, err := readAll(ctx, reader, 1)
	if err != nil {
		return "", err
	}
	if err := s.same(got, want, batchSize); err != nil {
		return "", err
	}
	if late, err := quiet(ctx, reader, 200*time.Millisecond); err != nil || len(late) > 0 {
		return "", fmt.Errorf("%d records after it: %v", len(late), err)
	}
	return "nothing, then the new record", nil
}

func (s *suite) describeTopic(ctx context.Context) (string, error) {
	topic, err := s.newTopic(ctx, "describe", 4, nil)
	if err != nil {
		return "", err
	}
	if err := s.expectPartitions(ctx, topic, 4); err != nil {
		return "", err
	}
	rows, err := s.client.DescribeTopic(ctx, topic)
	if err != nil {
		return "", err
	}
	cluster, err := s.client.DescribeCluster(ctx)
	if err != nil {
		return "", err
	}
	for _, row := range rows {
		known := slices.ContainsFunc(cluster.Brokers, func(b Broker) bool { return b.ID == row.Leader })
		if !known || !slices.Contains(row.Replicas, row.Leader) || !slices.Contains(row.ISR, row.Leader) {
			return "", fmt.Errorf("wrong row: %+v", row)
		}
	}
	topics, err := s.client.Topics(ctx)
	if err != nil {
		return "", err
	}
	if !slices.Contains(topics, topic) {
		return "", errors.New("not in the list of topics")
	}
	return "4 partitions with leader, replicas and in-sync replicas", nil
}

func (s *suite) describeConfigs(ctx context.Context) (string, error) {
	topic, err := s.newTopic(ctx, "configs", 1, map[string]string{"max.message.bytes": "2000000"})
	if err != nil {
		return "", err
	}
	configs, err := s.client.DescribeConfigs(ctx, topic)
	switch {
	case err != nil:
		return "", err
	case configs["max.message.bytes"] != "2000000" || configs["cleanup.policy"] != "delete" || len(configs) < 25:
		return "", fmt.Errorf("%d configs: %v", len(configs), configs)
	}
	return fmt.Sprintf("%d configs", len(configs)), nil
}

func (s *suite) alterConfigs(ctx context.Context) (string, error) {
	topic, err := s.newTopic(ctx, "alter", 1, nil)
	if err != nil {
		return "", err
	}
	change := map[string]string{"retention.ms": "123456789", "max.message.bytes": "3000000"}
	if err := s.client.AlterConfigs(ctx, topic, change); err != nil {
		return "", err
	}
	for {
		configs, err := s.client.DescribeConfigs(ctx, topic)
		if err != nil {
			return "", err
		}
		if configs["retention.ms"] == "123456789" && configs["max.message.bytes"] == "3000000" {
			break
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("configs are %v", configs)
		}
	}
	switch err := s.client.AlterConfigs(ctx, topic, map[string]string{"retention.ms": "soon"}); {
	case err == nil:
		return "", errors.New("retention.ms=soon was accepted")
	case !s.client.Refused(err):
		return "", err
	}
	return "changed two; a wrong value refused", nil
}

func (s *suite) createPartitions(ctx context.Context) (string, error) {
	topic, err := s.newTopic(ctx, "partitions", 1, nil)
	if err != nil {
		return "", err
	}
	if err := s.client.CreatePartitions(ctx, topic, 5); err != nil {
		return "", err
	}
	if err := s.expectPartitions(ctx, topic, 5); err != nil {
		return "", err
	}
	producer, err := s.client.NewProducer(ctx, ProducerOptions{Codec: "none", Acks: -1})
	if err != nil {
		return "", err
	}
	defer producer.Close()
	records := batch("partitions", 0, 3)
	if _, err := producer.Send(ctx, topic, 4, records); err != nil {
		return "", err
	}
	got, err := s.read(ctx, topic, 4, 0, 3)
	if err != nil {
		return "", err
	}
	return "1 to 5, and the fifth written and read", s.same(got, records, 0)
}

func (s *suite) deleteRecords(ctx context.Context) (string, error) {
	topic, records, err := s.filled(ctx, "delete-records")
	if err != nil {
		return "", err
	}
	if err := s.client.DeleteRecords(ctx, topic, 0, 20); err != nil {
		return "", err
	}
	earliest, latest, err := s.client.Offsets(ctx, topic, 0)
	if err != nil {
		return "", err
	}
	if earliest != 20 || latest != batchSize {
		return "", fmt.Errorf("offsets are %d to %d", earliest, latest)
	}
	return "20 of 50 gone, the other 30 read", s.readSame(ctx, topic, Earliest, records[20:], 20)
}

func (s *suite) deleteTopic(ctx context.Context) (string, error) {
	topic, err := s.newTopic(ctx, "delete-topic", 1, nil)
	if err != nil {
		return "", err
	}
	if err := s.client.DeleteTopic(ctx, topic); err != nil {
		return "", err
	}
	for {
		topics, err := s.client.Topics(ctx)
		if err != nil {
			return "", err
		}
		if !slices.Contains(topics, topic) {
			return "gone from the list", nil
		}
		select {
		case <-ctx.Done():
			return "", errors.New("still in the list of topics")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *suite) describeCluster(ctx context.Context) (string, error) {
	cluster, err := s.client.DescribeCluster(ctx)
	if err != nil {
		return "", err
	}
	host, text, err := net.SplitHostPort(s.bootstrap)
	if err != nil {
		return "", err
	}
	port, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return "", err
	}
	here, controller := false, cluster.Controller == -1
	for _, broker := range cluster.Brokers {
		here = here || broker.Host == host && broker.Port == int32(port)
		controller = controller || broker.ID == cluster.Controller
	}
	if !here || !controller || cluster.ID != "" && len(cluster.ID) < 8 {
		return "", fmt.Errorf("%+v", cluster)
	}
	return fmt.Sprintf("cluster %s, %d broker", cluster.ID, len(cluster.Brokers)), nil
}

// restartBroker has the runner restart the broker, and returns when that is done.
func (s *suite) restartBroker(how string) error {
	fmt.Println("RESTART", how)
	answer, _ := s.input.ReadString('\n')
	if answer = strings.TrimSpace(answer); answer != "RESTARTED" {
		if answer == "" {
			answer = "the runner did not restart the broker"
		}
		return NotAvailable(answer)
	}
	return nil
}

func (s *suite) restart(how string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		topic, err := s.newTopic(ctx, "restart-"+how, 1, nil)
		if err != nil {
			return "", err
		}
		producer, err := s.client.NewProducer(ctx, ProducerOptions{Codec: "none", Acks: -1})
		if err != nil {
			return "", err
		}
		defer producer.Close()
		reader, err := s.client.NewReader(ctx, topic, 0, 0)
		if err != nil {
			return "", err
		}
		defer reader.Close()
		records := batch("restart-"+how, 0, 60)
		step := func(from, to int) error {
			if _, err := producer.Send(ctx, topic, 0, records[from:to]); err != nil {
				return fmt.Errorf("producing %d to %d: %w", from, to, err)
			}
			got, err := readAll(ctx, reader, to-from)
			if err != nil {
				return err
			}
			return s.same(got, records[from:to], int64(from))
		}
		if err := step(0, 20); err != nil {
			return "", err
		}
		if err := s.restartBroker(how); err != nil {
			return "", err
		}
		fresh, cancel := context.WithTimeout(context.Background(), s.timeout)
		defer cancel()
		ctx = fresh
		for _, bounds := range [][2]int{{20, 40}, {40, 60}} {
			if err := step(bounds[0], bounds[1]); err != nil {
				return "", err
			}
		}
		if err := s.readSame(ctx, topic, 0, records, 0); err != nil {
			return "", fmt.Errorf("read again: %w", err)
		}
		return "the same producer and reader go on; all 60 records read again", s.expectPartitions(ctx, topic, 1)
	}
}

func acksName(acks int) string {
	if acks == -1 {
		return "all"
	}
	return strconv.Itoa(acks)
}

type named struct {
	name string
	run  func(context.Context) (string, error)
}

func (s *suite) checks() []named {
	list := []named{{"topic.create", s.topicCreate}}
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		for _, acks := range []int{0, 1, -1} {
			list = append(list, named{fmt.Sprintf("produce.%s.%s", codec, acksName(acks)), s.produce(codec, acks)})
		}
	}
	list = append(list, []named{
		{"produce.idempotent", s.idempotent},
		{"records.headers", s.headers},
		{"records.null_empty", s.nullEmpty},
		{"records.1mb", s.large},
		{"consume.start", s.consumeStart},
		{"consume.middle", s.consumeMiddle},
		{"consume.timestamp", s.consumeTimestamp},
		{"consume.end", s.consumeEnd},
		{"admin.describe_topic", s.describeTopic},
		{"admin.describe_configs", s.describeConfigs},
		{"admin.alter_configs", s.alterConfigs},
		{"admin.create_partitions", s.createPartitions},
		{"admin.delete_records", s.deleteRecords},
		{"admin.delete_topic", s.deleteTopic},
		{"admin.describe_cluster", s.describeCluster},
		{"restart.clean", s.restart("clean")},
		{"restart.kill", s.restart("kill")},
	}...)
	return append(list, s.groupChecks()...)
}

func version(module string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dependency := range info.Deps {
			if dependency.Path == module {
				return dependency.Version
			}
		}
	}
	return "unknown"
}

func say(line map[string]any) {
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}

// Main runs the checks. newClient is called anew for each: one broken client cannot spoil the next check.
func Main(name, module string, newClient func(bootstrap string, timeout time.Duration) (Client, error)) {
	prefix := flag.String("prefix", "compat", "what the names of all topics begin with")
	timeout := flag.Float64("timeout", 30, "seconds that one check may take")
	only := flag.String("only", "", "run only checks whose name contains this")
	member := flag.String("member", "", "be the member of a group that a check kills (groups.go)")
	flag.Usage = func() {
		fmt.Fprintf(os.Stderr, "usage: %s [flags] HOST:PORT (or COMPAT_BOOTSTRAP=HOST:PORT)\n", name)
		flag.PrintDefaults()
	}
	flag.Parse()
	bootstrap := os.Getenv("COMPAT_BOOTSTRAP")
	if flag.NArg() == 1 {
		bootstrap = flag.Arg(0)
	}
	if bootstrap == "" {
		flag.Usage()
		os.Exit(2)
	}
	s := &suite{
		bootstrap: bootstrap,
		prefix:    *prefix,
		timeout:   time.Duration(*timeout * float64(time.Second)),
		input:     bufio.NewReader(os.Stdin),
	}
	if *member != "" {
		client, err := newClient(s.bootstrap, s.timeout)
		if err != nil {
			panic(err)
		}
		beMember(client, *member)
	}
	say(map[string]any{"client": name, "version": version(module)})
	for _, check := range s.checks() {
		if !strings.Contains(check.name, *only) {
			continue
		}
		detail, err := s.one(check, newClient)
		var unavailable NotAvailable
		switch {
		case errors.As(err, &unavailable):
			say(map[string]any{"check": check.name, "na": string(unavailable)})
		case err != nil:
			say(map[string]any{"check": check.name, "ok": false, "detail": err.Error()})
		default:
			say(map[string]any{"check": check.name, "ok": true, "detail": detail})
		}
	}
}

func (s *suite) one(check named, newClient func(string, time.Duration) (Client, error)) (string, error) {
	client, err := newClient(s.bootstrap, s.timeout)
	if err != nil {
		return "", err
	}
	defer client.Close()
	s.client = client
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	return check.run(ctx)
}
