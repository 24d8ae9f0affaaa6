// A member of a group, with franz-go; ../README.md says what it does and prints.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	commitPatience = 5 * time.Second
	pollPatience   = 500 * time.Millisecond
	pace           = 100 * time.Millisecond
)

func main() {
	if len(os.Args) != 5 && len(os.Args) != 6 {
		fail("usage: member BOOTSTRAP TOPIC GROUP KIND [INSTANCE]")
	}
	topic := os.Args[2]
	say(event{"event": "start", "client": "franz-go " + version()})
	pending := &ends{of: map[int32]kgo.EpochOffset{}}
	client, err := kgo.NewClient(options(topic, pending)...)
	if err != nil {
		fail(err.Error())
	}
	stalls, closed := input()
	for wait := pace; ; wait = pace {
		handle(client, pending)
		select {
		case <-closed:
			// Leaving waits for the callbacks, and these for this.
			client.AllowRebalance()
			client.Close()
			return
		case wait = <-stalls:
		default:
		}
		time.Sleep(wait)
		commit(client, topic, pending)
		client.AllowRebalance()
	}
}

// How far this member has handled what it owns and has not committed. A partition is forgotten when it is taken away,
// and never while a commit of it is under way: franz-go commits in the name of the generation it is in by then.
type ends struct {
	sync.Mutex
	of map[int32]kgo.EpochOffset
}

func (pending *ends) forget(partitions []int32) {
	pending.Lock()
	defer pending.Unlock()
	for _, partition := range partitions {
		delete(pending.of, partition)
	}
}

func options(topic string, pending *ends) []kgo.Opt {
	options := []kgo.Opt{
		kgo.SeedBrokers(os.Args[1]),
		kgo.ConsumeTopics(topic),
		kgo.ConsumerGroup(os.Args[3]),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(6 * time.Second),
		kgo.HeartbeatInterval(time.Second),
		kgo.RebalanceTimeout(7 * time.Second),
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }),
		kgo.OnPartitionsAssigned(func(_ context.Context, client *kgo.Client, assigned map[string][]int32) {
			member, generation := client.GroupMetadata()
			say(event{"event": "assigned", "member": member, "generation": generation, "partitions": list(assigned[topic])})
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, revoked map[string][]int32) {
			pending.forget(revoked[topic])
			say(event{"event": "revoked", "partitions": list(revoked[topic])})
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
			pending.forget(lost[topic])
			say(event{"event": "lost", "partitions": list(lost[topic])})
		}),
	}
	switch os.Args[4] {
	case "range":
		options = append(options, kgo.Balancers(kgo.RangeBalancer()))
	case "cooperative":
		options = append(options, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	case "consumer":
		options = append(options, kgo.Balancers(kgo.StickyBalancer()), kgo.ServerSideBalancer())
	default:
		fail("no such kind of group: " + os.Args[4])
	}
	if len(os.Args) == 6 {
		options = append(options, kgo.InstanceID(os.Args[5]))
	}
	return options
}

// Takes what there is, and says so.
func handle(client *kgo.Client, pending *ends) {
	ctx, cancel := context.WithTimeout(context.Background(), pollPatience)
	fetches := client.PollRecords(ctx, 500)
	cancel()
	pending.Lock()
	defer pending.Unlock()
	records := [][3]int64{}
	fetches.EachRecord(func(record *kgo.Record) {
		number, err := strconv.ParseInt(string(record.Value), 10, 64)
		if err != nil {
			number = -1
		}
		records = append(records, [3]int64{int64(record.Partition), record.Offset, number})
		pending.of[record.Partition] = kgo.EpochOffset{Epoch: record.LeaderEpoch, Offset: record.Offset + 1}
	})
	if len(records) > 0 {
		say(event{"event": "handled", "records": records})
	}
}

// Commits what is pending; what is not refused is no longer pending.
func commit(client *kgo.Client, topic string, pending *ends) {
	pending.Lock()
	defer pending.Unlock()
	if len(pending.of) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), commitPatience)
	defer cancel()
	began := now()
	done := func(client *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
		if err != nil {
			say(event{"event": "refused", "error": err.Error()})
			return
		}
		offsets := [][2]int64{}
		for _, answered := range response.Topics {
			for _, partition := range answered.Partitions {
				if err := kerr.ErrorForCode(partition.ErrorCode); err != nil {
					say(event{"event": "refused", "error": err.Error()})
				} else {
					offsets = append(offsets, [2]int64{int64(partition.Partition), pending.of[partition.Partition].Offset})
					delete(pending.of, partition.Partition)
				}
			}
		}
		_, generation := client.GroupMetadata()
		say(event{"event": "committed", "began": began, "generation": generation, "offsets": offsets})
	}
	client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{topic: maps.Clone(pending.of)}, done)
}

// Each line of the input asks for a stall of so many milliseconds; its end asks to leave.
func input() (<-chan time.Duration, <-chan struct{}) {
	stalls, closed := make(chan time.Duration, 16), make(chan struct{})
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			if milliseconds, err := strconv.Atoi(lines.Text()); err == nil {
				stalls <- time.Duration(milliseconds) * time.Millisecond
			}
		}
		close(closed)
	}()
	return stalls, closed
}

type event map[string]any

// One write for a line, so that lines of callbacks and of the loop do not mix.
func say(event event) {
	event["at"] = now()
	line, err := json.Marshal(event)
	if err != nil {
		fail(err.Error())
	}
	os.Stdout.Write(append(line, '\n'))
}

func now() int64 {
	return time.Now().UnixMicro()
}

func list(partitions []int32) []int32 {
	return append([]int32{}, partitions...)
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

func fail(why string) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}
