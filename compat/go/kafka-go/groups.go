package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"ottla/compat/check"

	"github.com/segmentio/kafka-go"
)

// RebalanceBlind says that kafka.Reader does not tell what it holds; the broker's description of the group does.
func (c *client) RebalanceBlind() {}

type member struct {
	reader *kafka.Reader
	tally  check.Tally
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// Each member has a client id of its own, by which it is found in the description.
var members int

func (c *client) NewMember(_ context.Context, membership check.Membership) (check.Member, error) {
	switch {
	case membership.Consumer:
		return nil, check.NotAvailable("kafka-go speaks only the classic group protocol")
	case membership.Cooperative:
		return nil, check.NotAvailable("kafka-go has no cooperative balancer")
	case membership.Instance != "":
		return nil, check.NotAvailable("kafka-go has no static members")
	}
	if membership.ClientID == "compat" {
		members++
		membership.ClientID = fmt.Sprintf("compat-%d", members)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{cancel: cancel}
	m.reader = kafka.NewReader(kafka.ReaderConfig{
		Brokers:                []string{c.bootstrap},
		GroupID:                membership.Group,
		GroupTopics:            membership.Topics,
		GroupBalancers:         []kafka.GroupBalancer{kafka.RangeGroupBalancer{}},
		StartOffset:            kafka.FirstOffset,
		MinBytes:               1,
		MaxBytes:               8 << 20,
		MaxWait:                100 * time.Millisecond,
		ReadBackoffMax:         200 * time.Millisecond,
		SessionTimeout:         membership.Session,
		RebalanceTimeout:       membership.Session,
		HeartbeatInterval:      check.Refresh,
		JoinGroupBackoff:       200 * time.Millisecond,
		WatchPartitionChanges:  true,
		PartitionWatchInterval: check.Refresh,
		Dialer:                 &kafka.Dialer{Timeout: c.timeout, ClientID: membership.ClientID, Resolver: &net.Resolver{}},
	})
	m.work.Add(2)
	go m.read(ctx)
	go m.watch(ctx, c, membership)
	return m, nil
}

func (m *member) read(ctx context.Context) {
	defer m.work.Done()
	for ctx.Err() == nil {
		// It reports a lost connection, and goes on where it was when asked again.
		if message, err := m.reader.FetchMessage(ctx); err == nil {
			m.tally.Read(message.Topic, int32(message.Partition), check.Record{
				Offset: message.Offset, Key: message.Key, Value: message.Value, Time: message.Time,
			})
		}
	}
}

func (m *member) watch(ctx context.Context, c *client, membership check.Membership) {
	defer m.work.Done()
	for ctx.Err() == nil {
		state, rows, err := c.DescribeGroup(ctx, membership.Group, false)
		if err == nil && state == "Stable" {
			m.tally.Hold(rows[membership.ClientID])
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (m *member) Tally() *check.Tally { return &m.tally }

func (m *member) Commit(ctx context.Context, commits map[check.Place]check.Commit) error {
	var messages []kafka.Message
	for place, commit := range commits {
		if commit.Metadata != "" {
			return check.NotAvailable("kafka-go's reader commits without metadata")
		}
		messages = append(messages, kafka.Message{
			Topic: place.Topic, Partition: int(place.Partition), Offset: commit.Offset - 1,
		})
	}
	return m.reader.CommitMessages(ctx, messages...)
}

func (m *member) Leave() {
	m.cancel()
	_ = m.reader.Close()
	m.work.Wait()
}

func (c *client) ListGroups(ctx context.Context) (map[string]string, error) {
	answer, err := c.kafka.ListGroups(ctx, &kafka.ListGroupsRequest{})
	if err != nil {
		return nil, err
	}
	states := map[string]string{}
	for _, group := range answer.Groups {
		states[group.GroupID] = ""
	}
	return states, answer.Error
}

func (c *client) DescribeGroup(ctx context.Context, group string, _ bool) (string, map[string][]check.Place, error) {
	answer, err := c.kafka.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})
	if err != nil {
		return "", nil, err
	}
	if len(answer.Groups) != 1 {
		return "", nil, errors.New("not one group")
	}
	rows := map[string][]check.Place{}
	for _, row := range answer.Groups[0].Members {
		for _, topic := range row.MemberAssignments.Topics {
			for _, partition := range topic.Partitions {
				place := check.Place{Topic: topic.Topic, Partition: int32(partition)}
				rows[row.ClientID] = append(rows[row.ClientID], place)
			}
		}
	}
	return answer.Groups[0].GroupState, rows, answer.Groups[0].Error
}

func (c *client) DeleteGroup(ctx context.Context, group string) error {
	answer, err := c.kafka.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{group}})
	if err != nil {
		return err
	}
	return answer.Errors[group]
}

func (c *client) Committed(ctx context.Context, group string, place check.Place) (check.Commit, error) {
	answer, err := c.kafka.OffsetFetch(ctx, &kafka.OffsetFetchRequest{
		GroupID: group, Topics: map[string][]int{place.Topic: {int(place.Partition)}},
	})
	if err != nil {
		return check.Commit{}, err
	}
	rows := answer.Topics[place.Topic]
	if len(rows) != 1 {
		return check.Commit{}, errors.New("no row for the partition")
	}
	found := check.Commit{Offset: rows[0].CommittedOffset, Metadata: rows[0].Metadata}
	return found, errors.Join(answer.Error, rows[0].Error)
}

func (c *client) SetOffsets(ctx context.Context, group string, commits map[check.Place]check.Commit) error {
	topics := map[string][]kafka.OffsetCommit{}
	for place, commit := range commits {
		topics[place.Topic] = append(topics[place.Topic], kafka.OffsetCommit{
			Partition: int(place.Partition), Offset: commit.Offset, Metadata: commit.Metadata,
		})
	}
	answer, err := c.kafka.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: group, GenerationID: -1, Topics: topics,
	})
	if err != nil {
		return err
	}
	for _, rows := range answer.Topics {
		for _, row := range rows {
			err = errors.Join(err, row.Error)
		}
	}
	return err
}

func (c *client) DeleteOffsets(ctx context.Context, group string, places []check.Place) error {
	topics := map[string][]int{}
	for _, place := range places {
		topics[place.Topic] = append(topics[place.Topic], int(place.Partition))
	}
	answer, err := c.kafka.OffsetDelete(ctx, &kafka.OffsetDeleteRequest{GroupID: group, Topics: topics})
	if err != nil {
		return err
	}
	err = answer.Error
	for _, rows := range answer.Topics {
		for _, row := range rows {
			err = errors.Join(err, row.Error)
		}
	}
	return err
}

func (c *client) Code(err error) int {
	var known kafka.Error
	if errors.As(err, &known) {
		return int(known)
	}
	return -1
}
