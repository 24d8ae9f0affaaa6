package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"ottla/compat/check"

	"github.com/IBM/sarama"
)

type member struct {
	group   sarama.ConsumerGroup
	tally   check.Tally
	cancel  context.CancelFunc
	ended   chan struct{}
	lock    sync.Mutex
	session sarama.ConsumerGroupSession
}

func (c *client) NewMember(_ context.Context, membership check.Membership) (check.Member, error) {
	if membership.Consumer {
		return nil, check.NotAvailable("sarama speaks only the classic group protocol")
	}
	config := c.config()
	config.ClientID = membership.ClientID
	config.Metadata.RefreshFrequency = check.Refresh
	config.Consumer.Return.Errors = true
	config.Consumer.MaxWaitTime = 100 * time.Millisecond
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Group.InstanceId = membership.Instance
	config.Consumer.Group.Session.Timeout = membership.Session
	config.Consumer.Group.Heartbeat.Interval = check.Refresh
	config.Consumer.Group.Rebalance.Retry.Backoff = 200 * time.Millisecond
	if membership.Cooperative {
		strategies := []sarama.BalanceStrategy{sarama.NewBalanceStrategyCooperativeSticky()}
		config.Consumer.Group.Rebalance.GroupStrategies = strategies
	}
	group, err := sarama.NewConsumerGroup([]string{c.bootstrap}, membership.Group, config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{group: group, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(m.ended)
		for ctx.Err() == nil {
			if err := group.Consume(ctx, membership.Topics, m); err != nil {
				time.Sleep(50 * time.Millisecond) // it reports a lost connection, and goes on when asked again
			}
		}
	}()
	return m, nil
}

func (m *member) Setup(session sarama.ConsumerGroupSession) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.session = session
	return nil
}

func (m *member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m *member) ConsumeClaim(_ sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	place := check.Place{Topic: claim.Topic(), Partition: claim.Partition()}
	m.tally.Gain(place)
	defer m.tally.Lose(place)
	for message := range claim.Messages() {
		m.tally.Read(message.Topic, message.Partition, check.Record{
			Offset: message.Offset, Key: message.Key, Value: message.Value, Time: message.Timestamp,
		})
	}
	return nil
}

func (m *member) Tally() *check.Tally { return &m.tally }

// Commit marks and commits; sarama reports a refusal beside it.
func (m *member) Commit(_ context.Context, commits map[check.Place]check.Commit) error {
	m.lock.Lock()
	session := m.session
	m.lock.Unlock()
	for len(m.group.Errors()) > 0 {
		<-m.group.Errors()
	}
	for place, commit := range commits {
		session.MarkOffset(place.Topic, place.Partition, commit.Offset, commit.Metadata)
	}
	session.Commit()
	select {
	case err := <-m.group.Errors():
		return err
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}

func (m *member) Leave() {
	m.cancel()
	<-m.ended
	_ = m.group.Close()
}

func (c *client) ListGroups(context.Context) (map[string]string, error) {
	admin, err := c.connect()
	if err != nil {
		return nil, err
	}
	groups, err := admin.ListConsumerGroups()
	states := map[string]string{}
	for group := range groups {
		states[group] = ""
	}
	return states, err
}

func (c *client) DescribeGroup(_ context.Context, group string, _ bool) (string, map[string][]check.Place, error) {
	admin, err := c.connect()
	if err != nil {
		return "", nil, err
	}
	groups, err := admin.DescribeConsumerGroups([]string{group})
	if err != nil {
		return "", nil, err
	}
	if len(groups) != 1 {
		return "", nil, errors.New("not one group")
	}
	if err := groups[0].Err; err != sarama.ErrNoError && err != sarama.ErrGroupIDNotFound {
		return "", nil, err
	}
	members := map[string][]check.Place{}
	for _, row := range groups[0].Members {
		assigned, err := row.GetMemberAssignment()
		if err != nil {
			return "", nil, err
		}
		for topic, partitions := range assigned.Topics {
			for _, partition := range partitions {
				place := check.Place{Topic: topic, Partition: partition}
				members[row.ClientId] = append(members[row.ClientId], place)
			}
		}
	}
	return groups[0].State, members, nil
}

func (c *client) DeleteGroup(_ context.Context, group string) error {
	admin, err := c.connect()
	if err != nil {
		return err
	}
	return admin.DeleteConsumerGroup(group)
}

func (c *client) Committed(_ context.Context, group string, place check.Place) (check.Commit, error) {
	admin, err := c.connect()
	if err != nil {
		return check.Commit{}, err
	}
	answer, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{place.Topic: {place.Partition}})
	if err != nil {
		return check.Commit{}, err
	}
	row := answer.GetBlock(place.Topic, place.Partition)
	if row == nil {
		return check.Commit{}, errors.New("no row for the partition")
	}
	if row.Err != sarama.ErrNoError {
		return check.Commit{}, row.Err
	}
	return check.Commit{Offset: row.Offset, Metadata: row.Metadata}, nil
}

func (c *client) SetOffsets(_ context.Context, group string, commits map[check.Place]check.Commit) error {
	admin, err := c.connect()
	if err != nil {
		return err
	}
	offsets := map[string]map[int32]sarama.OffsetAndMetadata{}
	for place, commit := range commits {
		if offsets[place.Topic] == nil {
			offsets[place.Topic] = map[int32]sarama.OffsetAndMetadata{}
		}
		offsets[place.Topic][place.Partition] = sarama.OffsetAndMetadata{
			Offset: commit.Offset, LeaderEpoch: -1, Metadata: commit.Metadata,
		}
	}
	answer, err := admin.AlterConsumerGroupOffsets(group, offsets, nil)
	if err != nil {
		return err
	}
	for _, rows := range answer.Errors {
		for _, row := range rows {
			if row != sarama.ErrNoError {
				return row
			}
		}
	}
	return nil
}

func (c *client) DeleteOffsets(_ context.Context, group string, places []check.Place) error {
	admin, err := c.connect()
	if err != nil {
		return err
	}
	for _, place := range places {
		if err := admin.DeleteConsumerGroupOffset(group, place.Topic, place.Partition); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) Code(err error) int {
	var known sarama.KError
	if errors.As(err, &known) {
		return int(known)
	}
	return -1
}
