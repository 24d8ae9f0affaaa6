// An idempotent franz-go producer that outlives its broker; ../README.md says what it prints.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const valueLength = 120

func main() {
	if len(os.Args) != 5 {
		fail("usage: kill BOOTSTRAP TOPIC PARTITIONS PRODUCER")
	}
	bootstrap, topic := os.Args[1], os.Args[2]
	partitions, producer := number(os.Args[3]), number(os.Args[4])

	var lock sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	say := func(format string, arguments ...any) {
		lock.Lock()
		defer lock.Unlock()
		fmt.Fprintf(out, format+"\n", arguments...)
		out.Flush()
	}
	say("V franz-go %s", version())

	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.UnknownTopicRetries(-1),
		kgo.MaxBufferedRecords(500),
		kgo.MetadataMinAge(20*time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }),
	)
	if err != nil {
		fail(err.Error())
	}

	closed := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(closed)
	}()

	pace := time.NewTicker(2 * time.Millisecond)
	for next := 0; ; next++ {
		select {
		case <-closed:
			if err := client.Flush(context.Background()); err != nil {
				fail(err.Error())
			}
			client.Close()
			return
		case <-pace.C:
		}
		for partition := range partitions {
			record := &kgo.Record{
				Topic:     topic,
				Partition: int32(partition),
				Value:     value(producer+partition, next),
			}
			say("S %d %d", partition, next)
			client.Produce(context.Background(), record, func(record *kgo.Record, err error) {
				if err != nil {
					say("F %d %d %v", partition, next, err)
				} else {
					say("A %d %d %d", partition, next, record.Offset)
				}
			})
		}
	}
}

func value(producer, next int) []byte {
	name := fmt.Sprintf("%d:%d:%d;", producer, next, valueLength)
	return []byte(strings.Repeat(name, valueLength/len(name)+1)[:valueLength])
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
