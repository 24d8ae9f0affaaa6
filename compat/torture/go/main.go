// A client of a cluster under torture, with franz-go; ../README.md says what it does and prints.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	valueLength    = 120
	pace           = 20 * time.Millisecond
	commitEvery    = time.Second
	commitPatience = 10 * time.Second
	pollPatience   = 200 * time.Millisecond
	mostAtOnce     = 500
)

func main() {
	if len(os.Args) < 5 {
		fail("usage: torture ROLE BOOTSTRAP TOPICS ...")
	}
	topics := strings.Split(os.Args[3], ",")
	say("version franz-go %s", version())
	switch role := os.Args[1]; {
	case role == "produce" && len(os.Args) == 6:
		produce(topics, number(os.Args[4]), number(os.Args[5]))
	case role == "assign" && len(os.Args) == 5:
		assign(topics, number(os.Args[4]))
	case role == "group" && len(os.Args) == 5:
		group(topics, os.Args[4])
	default:
		fail("the roles are produce, assign and group")
	}
}

func options(more ...kgo.Opt) []kgo.Opt {
	return append([]kgo.Opt{
		kgo.SeedBrokers(strings.Split(os.Args[2], ",")...),
		kgo.DialTimeout(3 * time.Second),
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.MetadataMaxAge(5 * time.Second),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
	}, more...)
}

func start(more ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(options(more...)...)
	if err != nil {
		fail(err.Error())
	}
	return client
}

func produce(topics []string, partitions, first int) {
	client := start(
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.UnknownTopicRetries(-1),
		kgo.MaxBufferedRecords(2000),
		kgo.ProduceRequestTimeout(10*time.Second),
	)
	closed := input()
	began := time.Now()
	for next := 0; ; next++ {
		intended := began.Add(time.Duration(next) * pace)
		select {
		case <-closed:
			if err := client.Flush(context.Background()); err != nil {
				fail(err.Error())
			}
			client.Close()
			return
		case <-time.After(time.Until(intended)):
		}
		for index, topic := range topics {
			for partition := range partitions {
				producer := first + index*partitions + partition
				key, sent := fmt.Sprintf("%s-%d", topic, partition), fmt.Sprintf("%d.%d", producer, next)
				record := &kgo.Record{Topic: topic, Partition: int32(partition), Value: []byte(value(producer, next))}
				say("send %d %d %s=%s", intended.UnixMicro(), now(), key, sent)
				client.Produce(context.Background(), record, func(record *kgo.Record, err error) {
					if err != nil {
						say("fail %d %s %s=%s", now(), name(err), key, sent)
					} else {
						say("ack %d %s@%d=%s", now(), key, record.Offset, sent)
					}
				})
			}
		}
	}
}

func assign(topics []string, partitions int) {
	from := map[string]map[int32]kgo.Offset{}
	places := ""
	for _, topic := range topics {
		from[topic] = map[int32]kgo.Offset{}
		for partition := range partitions {
			from[topic][int32(partition)] = kgo.NewOffset().At(0)
			places += fmt.Sprintf(" %s-%d@0", topic, partition)
		}
	}
	say("assign %d%s", now(), places)
	client := start(kgo.ConsumePartitions(from), kgo.FetchMaxWait(pollPatience))
	closed := input()
	for {
		select {
		case <-closed:
			say("ended %d", now())
			client.Close()
			return
		default:
			take(client).tell(func(*kgo.Record) {})
		}
	}
}

// What is read and not committed, by topic and partition.
type offsets map[string]map[int32]kgo.EpochOffset

func (pending offsets) forget(partitions map[string][]int32) {
	for topic, of := range partitions {
		for _, partition := range of {
			delete(pending[topic], partition)
		}
	}
}

func group(topics []string, name string) {
	pending, lock := offsets{}, sync.Mutex{}
	for _, topic := range topics {
		pending[topic] = map[int32]kgo.EpochOffset{}
	}
	gone := func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
		lock.Lock()
		defer lock.Unlock()
		pending.forget(partitions)
		say("revoked %d%s", now(), keys(partitions))
	}
	client := start(
		kgo.ConsumeTopics(topics...),
		kgo.ConsumerGroup(name),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.Balancers(kgo.RangeBalancer()),
		kgo.SessionTimeout(10*time.Second),
		kgo.HeartbeatInterval(time.Second),
		kgo.FetchMaxWait(pollPatience),
		kgo.OnPartitionsAssigned(func(_ context.Context, client *kgo.Client, partitions map[string][]int32) {
			_, generation := client.GroupMetadata()
			say("assigned %d %d%s", now(), generation, keys(partitions))
		}),
		kgo.OnPartitionsRevoked(gone),
		kgo.OnPartitionsLost(gone),
	)
	closed := input()
	for next := time.Now(); ; {
		// Not under the lock: a poll waits for a rebalance, whose callbacks wait for the lock.
		taken := take(client)
		lock.Lock()
		taken.tell(func(record *kgo.Record) {
			pending[record.Topic][record.Partition] = kgo.EpochOffset{Epoch: record.LeaderEpoch, Offset: record.Offset + 1}
		})
		if time.Now().After(next) {
			commit(client, pending)
			next = time.Now().Add(commitEvery)
		}
		lock.Unlock()
		client.AllowRebalance()
		select {
		case <-closed:
			client.Close()
			say("ended %d", now())
			return
		default:
		}
	}
}

// Commits what is pending; what is not refused is no longer pending.
func commit(client *kgo.Client, pending offsets) {
	asked, places := offsets{}, ""
	for topic, of := range pending {
		for partition, offset := range of {
			if asked[topic] == nil {
				asked[topic] = map[int32]kgo.EpochOffset{}
			}
			asked[topic][partition] = offset
			places += fmt.Sprintf(" %s-%d@%d", topic, partition, offset.Offset)
		}
	}
	if len(asked) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), commitPatience)
	defer cancel()
	began := now()
	done := func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
		if err != nil {
			say("refused %d %d %s%s", began, now(), name(err), places)
			return
		}
		for _, answered := range response.Topics {
			for _, partition := range answered.Partitions {
				offset := asked[answered.Topic][partition.Partition].Offset
				place := fmt.Sprintf("%s-%d@%d", answered.Topic, partition.Partition, offset)
				if err := kerr.ErrorForCode(partition.ErrorCode); err != nil {
					say("refused %d %d %s %s", began, now(), name(err), place)
				} else {
					say("commit %d %d %s", began, now(), place)
					delete(pending[answered.Topic], partition.Partition)
				}
			}
		}
	}
	client.CommitOffsetsSync(ctx, asked, done)
}

// What one poll brought, and when it began.
type taken struct {
	began   int64
	fetches kgo.Fetches
}

func take(client *kgo.Client) taken {
	began := now()
	ctx, cancel := context.WithTimeout(context.Background(), pollPatience)
	defer cancel()
	return taken{began, client.PollRecords(ctx, mostAtOnce)}
}

func (taken taken) tell(handled func(*kgo.Record)) {
	records := &strings.Builder{}
	taken.fetches.EachRecord(func(record *kgo.Record) {
		fmt.Fprintf(records, " %s-%d@%d=%s", record.Topic, record.Partition, record.Offset, show(string(record.Value)))
		handled(record)
	})
	if records.Len() > 0 {
		say("poll %d %d%s", taken.began, now(), records)
	}
}

func value(producer, number int) string {
	name := fmt.Sprintf("%d:%d:%d;", producer, number, valueLength)
	return strings.Repeat(name, valueLength/len(name)+1)[:valueLength]
}

// A value as a history has it, `?` if it is not whole.
func show(found string) string {
	var producer, number, length int
	_, err := fmt.Sscanf(found, "%d:%d:%d;", &producer, &number, &length)
	if err != nil || found != value(producer, number) {
		return "?"
	}
	return fmt.Sprintf("%d.%d", producer, number)
}

func keys(partitions map[string][]int32) string {
	all := ""
	for topic, of := range partitions {
		for _, partition := range of {
			all += fmt.Sprintf(" %s-%d", topic, partition)
		}
	}
	return all
}

// Kafka's name of an error, in one word.
func name(err error) string {
	var known *kerr.Error
	if errors.As(err, &known) {
		return known.Message
	}
	return "CLIENT_ERROR"
}

// Closed with the input.
func input() <-chan struct{} {
	closed := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(closed)
	}()
	return closed
}

// One write for a line, so that lines of callbacks and of the loop do not mix.
func say(format string, arguments ...any) {
	fmt.Fprintf(os.Stdout, format+"\n", arguments...)
}

func now() int64 {
	return time.Now().UnixMicro()
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dependency := range info.Deps {
			if dependency.Path == "github.com/twmb/franz-go" {
				return dependency.Version
			}
		}
	}
	return "of unknown version"
}

func number(text string) int {
	parsed, err := strconv.Atoi(text)
	if err != nil {
		fail(err.Error())
	}
	return parsed
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}
