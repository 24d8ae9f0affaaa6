package main

import (
	"context"
	"errors"
	"fmt"

	"ottla/compat/check"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

type member struct {
	kgo    *kgo.Client
	tally  check.Tally
	cancel context.CancelFunc
	ended  chan struct{}
}

func placesOf(topics map[string][]int32) (places []check.Place) {
	for topic, partitions := range topics {
		for _, partition := range partitions {
			places = append(places, check.Place{Topic: topic, Partition: partition})
		}
	}
	return places
}

func (c *client) NewMember(_ context.Context, membership check.Membership) (check.Member, error) {
	if membership.Consumer && membership.Instance != "" {
		return nil, check.NotAvailable("franz-go leaves without its instance id, which keeps the place until the session ends")
	}
	m := &member{ended: make(chan struct{})}
	lose := func(_ context.Context, _ *kgo.Client, topics map[string][]int32) { m.tally.Lose(placesOf(topics)...) }
	options := []kgo.Opt{
		kgo.ClientID(membership.ClientID),
		kgo.ConsumerGroup(membership.Group),
		kgo.ConsumeTopics(membership.Topics...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.FetchMaxWait(check.Refresh / 5),
		kgo.MetadataMaxAge(check.Refresh),
		kgo.SessionTimeout(membership.Session),
		kgo.HeartbeatInterval(check.Refresh),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, topics map[string][]int32) {
			m.tally.Gain(placesOf(topics)...)
		}),
		kgo.OnPartitionsRevoked(lose),
		kgo.OnPartitionsLost(lose),
		kgo.Balancers(kgo.RangeBalancer()),
	}
	if membership.Cooperative {
		options = append(options, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	}
	if membership.Instance != "" {
		options = append(options, kgo.InstanceID(membership.Instance))
	}
	if membership.Pattern != "" {
		options = append(options, kgo.ConsumeRegex(), kgo.ConsumeTopics(membership.Pattern))
	}
	if membership.Consumer {
		options = append(options, kgo.ServerSideBalancer())
	}
	made, err := c.with(options...)
	if err != nil {
		return nil, err
	}
	m.kgo = made
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	go m.poll(ctx)
	return m, nil
}

func (m *member) poll(ctx context.Context) {
	defer close(m.ended)
	for ctx.Err() == nil {
		for _, record := range m.kgo.PollFetches(ctx).Records() {
			m.tally.Read(record.Topic, record.Partition, check.Record{
				Offset: record.Offset, Key: record.Key, Value: record.Value, Time: record.Timestamp,
			})
		}
	}
}

func (m *member) Tally() *check.Tally { return &m.tally }

func (m *member) Commit(ctx context.Context, commits map[check.Place]check.Commit) error {
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for place, commit := range commits {
		if offsets[place.Topic] == nil {
			offsets[place.Topic] = map[int32]kgo.EpochOffset{}
		}
		offsets[place.Topic][place.Partition] = kgo.EpochOffset{Epoch: -1, Offset: commit.Offset}
	}
	ctx = kgo.PreCommitFnContext(ctx, func(request *kmsg.OffsetCommitRequest) error {
		for _, topic := range request.Topics {
			for i := range topic.Partitions {
				row := &topic.Partitions[i]
				metadata := commits[check.Place{Topic: topic.Topic, Partition: row.Partition}].Metadata
				row.Metadata = &metadata
			}
		}
		return nil
	})
	var failure error
	m.kgo.CommitOffsetsSync(ctx, offsets,
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, answer *kmsg.OffsetCommitResponse, err error) {
			failure = err
			for _, topic := range answer.Topics {
				for _, row := range topic.Partitions {
					failure = errors.Join(failure, kerr.ErrorForCode(row.ErrorCode))
				}
			}
		})
	return failure
}

func (m *member) Leave() {
	m.cancel()
	<-m.ended
	m.kgo.Close()
}

func (c *client) ListGroups(ctx context.Context) (map[string]string, error) {
	groups, err := c.admin.ListGroups(ctx)
	states := map[string]string{}
	for _, group := range groups {
		states[group.Group] = group.State
	}
	return states, err
}

func (c *client) DescribeGroup(
	ctx context.Context, group string, consumer bool,
) (string, map[string][]check.Place, error) {
	members := map[string][]check.Place{}
	if consumer {
		groups, err := c.admin.DescribeConsumerGroups(ctx, group)
		if err != nil {
			return "", nil, err
		}
		if errors.Is(groups[group].Err, kerr.GroupIDNotFound) {
			return "Dead", nil, nil
		}
		for _, row := range groups[group].Members {
			members[row.ClientID] = placesIn(row.Assignment)
		}
		return groups[group].State, members, groups[group].Err
	}
	groups, err := c.admin.DescribeGroups(ctx, group)
	if err != nil {
		return "", nil, err
	}
	if errors.Is(groups[group].Err, kerr.GroupIDNotFound) {
		return "Dead", nil, nil
	}
	for _, row := range groups[group].Members {
		assigned, ok := row.Assigned.AsConsumer()
		if !ok {
			return "", nil, fmt.Errorf("no assignment of %s", row.ClientID)
		}
		set := kadm.TopicsSet{}
		for _, topic := range assigned.Topics {
			set.Add(topic.Topic, topic.Partitions...)
		}
		members[row.ClientID] = placesIn(set)
	}
	return groups[group].State, members, groups[group].Err
}

func placesIn(topics kadm.TopicsSet) (places []check.Place) {
	for _, topic := range topics.Sorted() {
		for _, partition := range topic.Partitions {
			places = append(places, check.Place{Topic: topic.Topic, Partition: partition})
		}
	}
	return places
}

func (c *client) DeleteGroup(ctx context.Context, group string) error {
	answer, err := c.admin.DeleteGroup(ctx, group)
	if err != nil {
		return err
	}
	return answer.Err
}

func (c *client) Committed(ctx context.Context, group string, place check.Place) (check.Commit, error) {
	answers, err := c.admin.FetchOffsetsForTopics(ctx, group, place.Topic)
	if err != nil {
		return check.Commit{}, err
	}
	found, ok := answers.Lookup(place.Topic, place.Partition)
	if !ok {
		return check.Commit{Offset: -1}, nil
	}
	return check.Commit{Offset: found.At, Metadata: found.Metadata}, found.Err
}

func (c *client) SetOffsets(ctx context.Context, group string, commits map[check.Place]check.Commit) error {
	offsets := kadm.Offsets{}
	for place, commit := range commits {
		offsets.Add(kadm.Offset{
			Topic: place.Topic, Partition: place.Partition,
			At: commit.Offset, LeaderEpoch: -1, Metadata: commit.Metadata,
		})
	}
	return c.admin.CommitAllOffsets(ctx, group, offsets)
}

func (c *client) DeleteOffsets(ctx context.Context, group string, places []check.Place) error {
	set := kadm.TopicsSet{}
	for _, place := range places {
		set.Add(place.Topic, place.Partition)
	}
	answers, err := c.admin.DeleteOffsets(ctx, group, set)
	if err != nil {
		return err
	}
	return answers.Error()
}

func (c *client) Code(err error) int {
	var known *kerr.Error
	if errors.As(err, &known) {
		return int(known.Code)
	}
	return -1
}
