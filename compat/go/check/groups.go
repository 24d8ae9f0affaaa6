package check

// The named checks of consumer groups. Members are those of the client's library and work by themselves; only the one
// that crashes is a process of its own, which is this program again.

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	places       = 4                // partitions of a group's topic
	longSession  = 30 * time.Second // longer than any check of what happens without a timeout
	shortSession = 6 * time.Second  // the shortest that Kafka allows
	soon         = 5 * time.Second  // for what may not wait for a session to time out
	settling     = 1500 * time.Millisecond
	quietTime    = 200 * time.Millisecond
)

// Refresh is how often members look for new partitions.
const Refresh = 500 * time.Millisecond

// Kafka's codes of what is refused.
const (
	offsetMetadataTooLarge = 12
	unknownMemberID        = 25
	nonEmptyGroup          = 68
	groupIDNotFound        = 69
	groupSubscribedToTopic = 86
)

// Place is one partition of a topic.
type Place struct {
	Topic     string
	Partition int32
}

func (p Place) before(other Place) int {
	if order := strings.Compare(p.Topic, other.Topic); order != 0 {
		return order
	}
	return int(p.Partition - other.Partition)
}

// Commit is what is committed for a place; the offset is -1 where there is none.
type Commit struct {
	Offset   int64
	Metadata string
}

// Membership is what a member is made with. It begins at the earliest offset and commits nothing by itself.
type Membership struct {
	Group       string
	Topics      []string
	Pattern     string // instead of topics
	Consumer    bool   // the new protocol
	Cooperative bool
	Instance    string
	Session     time.Duration
	ClientID    string
}

// Member works until it leaves, and keeps its tally.
type Member interface {
	Tally() *Tally
	// Commit returns when that is answered.
	Commit(ctx context.Context, commits map[Place]Commit) error
	// Leave closes the member as its library does it: a static one does not leave.
	Leave()
}

// GroupClient is the part of Client that groups need. Any method may return NotAvailable.
type GroupClient interface {
	NewMember(ctx context.Context, membership Membership) (Member, error)
	// ListGroups returns the state of each, empty where the client does not tell.
	ListGroups(ctx context.Context) (map[string]string, error)
	// DescribeGroup returns the state, Dead when there is no such group, and what each client id holds.
	DescribeGroup(ctx context.Context, group string, consumer bool) (string, map[string][]Place, error)
	DeleteGroup(ctx context.Context, group string) error
	Committed(ctx context.Context, group string, place Place) (Commit, error)
	// SetOffsets commits for a group that has no members.
	SetOffsets(ctx context.Context, group string, commits map[Place]Commit) error
	DeleteOffsets(ctx context.Context, group string, places []Place) error
	// Code is Kafka's code of an error.
	Code(err error) int
}

// RebalanceBlind is what a client implements that does not tell what is given to a member and taken from it.
type RebalanceBlind interface{ RebalanceBlind() }

type got struct {
	place  Place
	record Record
}

// Tally is what one member holds, was given and has read. Its library's calls change it while the check looks.
type Tally struct {
	lock   sync.Mutex
	places map[Place]bool
	lost   map[Place]bool // ever taken from it
	events int            // how many times it was given or deprived of places
	got    []got
}

// Gain notes places that the member is given.
func (t *Tally) Gain(places ...Place) {
	t.lock.Lock()
	defer t.lock.Unlock()
	if t.places == nil {
		t.places, t.lost = map[Place]bool{}, map[Place]bool{}
	}
	t.events++
	for _, place := range places {
		t.places[place] = true
	}
}

// Lose notes places that are taken from the member.
func (t *Tally) Lose(places ...Place) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.events++
	for _, place := range places {
		delete(t.places, place)
		t.lost[place] = true
	}
}

// Hold notes all that the member holds, for a client that does not tell of changes.
func (t *Tally) Hold(places []Place) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.places = map[Place]bool{}
	for _, place := range places {
		t.places[place] = true
	}
}

// Read notes a record that came to the member.
func (t *Tally) Read(topic string, partition int32, record Record) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.got = append(t.got, got{Place{topic, partition}, record})
}

func (t *Tally) held() []Place {
	t.lock.Lock()
	defer t.lock.Unlock()
	return slices.SortedFunc(maps.Keys(t.places), Place.before)
}

func (t *Tally) taken() []Place {
	t.lock.Lock()
	defer t.lock.Unlock()
	return slices.SortedFunc(maps.Keys(t.lost), Place.before)
}

func (t *Tally) changes() int {
	t.lock.Lock()
	defer t.lock.Unlock()
	return t.events
}

func (t *Tally) read() []got {
	t.lock.Lock()
	defer t.lock.Unlock()
	return slices.Clone(t.got)
}

// forget returns what to commit for all that was read, and begins anew.
func (t *Tally) forget() map[Place]Commit {
	t.lock.Lock()
	defer t.lock.Unlock()
	commits := map[Place]Commit{}
	for _, each := range t.got {
		commits[each.place] = Commit{Offset: each.record.Offset + 1}
	}
	t.got = nil
	return commits
}

// party is one group, its members, and the records written for them.
type party struct {
	*suite
	membership Membership
	places     []Place
	members    []Member
	written    map[Place][]Record
	unread     map[Place][]Record
	child      *exec.Cmd
	repeats    bool // what is not committed may come again
}

func (s *suite) newParty(ctx context.Context, name string, membership Membership) (*party, error) {
	if membership.Consumer {
		name += "-848"
	}
	topic, err := s.newTopic(ctx, "group-"+name, places, nil)
	membership.Group = s.prefix + "-" + name
	membership.Topics = []string{topic}
	membership.ClientID = "compat"
	if membership.Session == 0 {
		membership.Session = longSession
	}
	p := &party{suite: s, membership: membership, written: map[Place][]Record{}, unread: map[Place][]Record{}}
	for i := range places {
		p.places = append(p.places, Place{topic, int32(i)})
	}
	return p, err
}

func (p *party) close() {
	if p.child != nil {
		_ = p.child.Process.Kill()
		_ = p.child.Wait()
	}
	for _, member := range p.members {
		member.Leave()
	}
}

func (p *party) joinAs(ctx context.Context, change func(*Membership)) (Member, error) {
	membership := p.membership
	change(&membership)
	member, err := p.client.NewMember(ctx, membership)
	if err == nil {
		p.members = append(p.members, member)
	}
	return member, err
}

func (p *party) join(ctx context.Context) (Member, error) { return p.joinAs(ctx, func(*Membership) {}) }

// joinTwo makes two members, and waits until they share the places.
func (p *party) joinTwo(ctx context.Context) (first, second Member, err error) {
	if first, err = p.join(ctx); err != nil {
		return
	}
	if second, err = p.join(ctx); err != nil {
		return
	}
	return first, second, p.settled(ctx, 0)
}

func (p *party) leave(member Member) {
	p.members = slices.DeleteFunc(p.members, func(each Member) bool { return each == member })
	member.Leave()
}

// write produces 5 new records to each place.
func (p *party) write(ctx context.Context, places ...Place) error {
	if len(places) == 0 {
		places = p.places
	}
	producer, err := p.client.NewProducer(ctx, ProducerOptions{Codec: "none", Acks: -1})
	if err != nil {
		return err
	}
	defer producer.Close()
	for _, place := range places {
		records := batch(fmt.Sprint(place), len(p.written[place]), 5)
		if _, err := producer.Send(ctx, place.Topic, place.Partition, records); err != nil {
			return err
		}
		p.written[place] = append(p.written[place], records...)
		p.unread[place] = append(p.unread[place], records...)
	}
	return nil
}

func (p *party) until(ctx context.Context, what string, holds func() bool) error {
	for !holds() {
		select {
		case <-ctx.Done():
			text := what + ": members"
			for _, member := range p.members {
				text += fmt.Sprintf(" hold %v and have read %d records;", member.Tally().held(), len(member.Tally().read()))
			}
			return errors.New(text)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// settled waits until the members share the places evenly, and no rebalance has begun for a while.
func (p *party) settled(ctx context.Context, still time.Duration) error {
	seen, since := -1, time.Now()
	return p.until(ctx, "each place has one owner, and no member more than another", func() bool {
		events, least, most := 0, len(p.places), 0
		var held []Place
		for _, member := range p.members {
			holds := member.Tally().held()
			least, most = min(least, len(holds)), max(most, len(holds))
			held = append(held, holds...)
			events += member.Tally().changes()
		}
		if events != seen {
			seen, since = events, time.Now()
		}
		slices.SortFunc(held, Place.before)
		return slices.Equal(held, p.places) && most-least <= 1 && time.Since(since) >= still
	})
}

// read waits until members have got what was written and not read; each record once, in order, by its owner.
func (p *party) read(ctx context.Context) error {
	want := 0
	for _, records := range p.unread {
		want += len(records)
	}
	total := func() (count int) {
		for _, member := range p.members {
			count += len(member.Tally().read())
		}
		return count
	}
	if err := p.until(ctx, fmt.Sprintf("%d records", want), func() bool { return total() >= want }); err != nil {
		return err
	}
	time.Sleep(quietTime) // in which a record too many would come
	read := map[Place][]Record{}
	for _, member := range p.members {
		held := member.Tally().held()
		for _, each := range member.Tally().read() {
			if !slices.Contains(held, each.place) {
				return fmt.Errorf("a record of %v came to a member that holds %v", each.place, held)
			}
			read[each.place] = append(read[each.place], each.record)
		}
	}
	for place, records := range p.unread {
		if p.repeats {
			read[place] = lastOfEach(read[place])
		}
		if err := p.same(read[place], records, int64(len(p.written[place])-len(records))); err != nil {
			return fmt.Errorf("%v: %w", place, err)
		}
	}
	if count := total(); count != want && !p.repeats {
		return fmt.Errorf("%d records instead of %d", count, want)
	}
	p.unread = map[Place][]Record{}
	return nil
}

// lastOfEach leaves out what came again later.
func lastOfEach(records []Record) (last []Record) {
	for i, record := range records {
		again := func(later Record) bool { return later.Offset == record.Offset }
		if !slices.ContainsFunc(records[i+1:], again) {
			last = append(last, record)
		}
	}
	return last
}

// readAndCommit is read, and a commit of all that each member has got.
func (p *party) readAndCommit(ctx context.Context) error {
	if err := p.read(ctx); err != nil {
		return err
	}
	for _, member := range p.members {
		if commits := member.Tally().forget(); len(commits) > 0 {
			if err := member.Commit(ctx, commits); err != nil {
				return fmt.Errorf("committing: %w", err)
			}
		}
	}
	return nil
}

// exchange writes records, has them read, and committed.
func (p *party) exchange(ctx context.Context) error {
	if err := p.write(ctx); err != nil {
		return err
	}
	return p.readAndCommit(ctx)
}

// again has the places read anew from these offsets.
func (p *party) again(from func(Place) int64) {
	for place, records := range p.written {
		p.unread[place] = records[from(place):]
	}
}

// joinChild starts a member in a process of its own, and waits until it holds half of the places.
func (p *party) joinChild(ctx context.Context) error {
	membership := p.membership
	membership.ClientID = "child"
	text, err := json.Marshal(membership)
	if err != nil {
		return err
	}
	p.child = exec.Command(os.Args[0], "-member", string(text), p.bootstrap)
	output, err := p.child.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.child.Start(); err != nil {
		return err
	}
	said := make(chan string, 100)
	go func() {
		for lines := bufio.NewScanner(output); lines.Scan(); {
			said <- lines.Text()
		}
	}()
	last := ""
	return p.until(ctx, "half here and half in the other process", func() bool {
		select {
		case last = <-said:
		default:
		}
		return last == fmt.Sprint(places/2) && len(p.members[0].Tally().held()) == places/2
	})
}

// beMember is the process that crashes: it joins, says how many places it holds whenever that changes, and is killed.
func beMember(client Client, text string) {
	var membership Membership
	if err := json.Unmarshal([]byte(text), &membership); err != nil {
		panic(err)
	}
	member, err := client.NewMember(context.Background(), membership)
	if err != nil {
		panic(err)
	}
	for last := -1; ; time.Sleep(10 * time.Millisecond) {
		if held := len(member.Tally().held()); held != last {
			last = held
			fmt.Println(held)
		}
	}
}

func (s *suite) refused(err error, code int) error {
	var unavailable NotAvailable
	switch {
	case err == nil:
		return fmt.Errorf("not refused with error %d", code)
	case errors.As(err, &unavailable) || s.client.Code(err) != code:
		return fmt.Errorf("not refused with error %d: %w", code, err)
	}
	return nil
}

func (p *party) expectCommitted(ctx context.Context, place Place, want Commit) error {
	found, err := p.client.Committed(ctx, p.membership.Group, place)
	if err == nil && found != want {
		err = fmt.Errorf("committed for %v: %v instead of %v", place, found, want)
	}
	return err
}

func (p *party) groupJoin(ctx context.Context) (string, error) {
	if err := p.write(ctx); err != nil {
		return "", err
	}
	if _, err := p.join(ctx); err != nil {
		return "", err
	}
	if err := p.settled(ctx, 0); err != nil {
		return "", err
	}
	if err := p.readAndCommit(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d partitions, records from before and after", places), p.exchange(ctx)
}

func (p *party) groupRebalance(ctx context.Context) (string, error) {
	first, err := p.join(ctx)
	if err != nil {
		return "", err
	}
	if err := p.settled(ctx, 0); err != nil {
		return "", err
	}
	if err := p.exchange(ctx); err != nil {
		return "", err
	}
	second, err := p.join(ctx)
	if err != nil {
		return "", err
	}
	if err := p.settled(ctx, 0); err != nil {
		return "", err
	}
	taken := p.places
	if p.membership.Cooperative || p.membership.Consumer {
		taken = second.Tally().held()
	}
	if _, blind := p.client.(RebalanceBlind); !blind && !slices.Equal(first.Tally().taken(), taken) {
		return "", fmt.Errorf("taken from the first: %v instead of %v", first.Tally().taken(), taken)
	}
	if err := p.exchange(ctx); err != nil {
		return "", err
	}
	topic := p.places[0].Topic
	if err := p.client.CreatePartitions(ctx, topic, places+2); err != nil {
		return "", err
	}
	p.places = append(p.places, Place{topic, places}, Place{topic, places + 1})
	// The member that learns of them last begins another rebalance.
	if err := p.settled(ctx, settling); err != nil {
		return "", fmt.Errorf("with new partitions: %w", err)
	}
	return "4 partitions among 1, then 2, then 6 among 2; each record once, by its owner", p.exchange(ctx)
}

func (p *party) groupLeave(ctx context.Context) (string, error) {
	_, second, err := p.joinTwo(ctx)
	if err != nil {
		return "", err
	}
	if err := p.exchange(ctx); err != nil {
		return "", err
	}
	p.leave(second)
	quick, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	if err := p.settled(quick, 0); err != nil {
		return "", err
	}
	return "the other takes over at once", p.exchange(ctx)
}

func (p *party) groupCrash(ctx context.Context) (string, error) {
	first, err := p.join(ctx)
	if err != nil {
		return "", err
	}
	if err := p.settled(ctx, 0); err != nil {
		return "", err
	}
	if err := p.exchange(ctx); err != nil {
		return "", err
	}
	if err := p.joinChild(ctx); err != nil {
		return "", err
	}
	if err := p.child.Process.Kill(); err != nil {
		return "", err
	}
	killed := time.Now()
	held := first.Tally().held()
	theirs := slices.DeleteFunc(slices.Clone(p.places), func(place Place) bool { return slices.Contains(held, place) })
	if err := p.write(ctx, theirs...); err != nil {
		return "", err
	}
	if err := p.settled(ctx, 0); err != nil {
		return "", err
	}
	if took := time.Since(killed); took < shortSession/2 || took > shortSession*2 {
		return "", fmt.Errorf("taken over after %v", took)
	}
	return fmt.Sprintf("taken over when the session of %v was over", shortSession), p.read(ctx)
}

func (p *party) groupStatic(ctx context.Context) (string, error) {
	named := func(name string) func(*Membership) { return func(m *Membership) { m.Instance = name } }
	first, err := p.joinAs(ctx, named("first"))
	if err != nil {
		return "", err
	}
	second, err := p.joinAs(ctx, named("second"))
	if err != nil {
		return "", err
	}
	if err := p.settled(ctx, 0); err != nil {
		return "", err
	}
	if err := p.exchange(ctx); err != nil {
		return "", err
	}
	held, seen := second.Tally().held(), first.Tally().changes()
	p.leave(second)
	if err := p.write(ctx); err != nil {
		return "", err
	}
	if second, err = p.joinAs(ctx, named("second")); err != nil {
		return "", err
	}
	if err := p.settled(ctx, 0); err != nil {
		return "", err
	}
	if err := p.read(ctx); err != nil {
		return "", err
	}
	if now := second.Tally().held(); !slices.Equal(now, held) {
		return "", fmt.Errorf("the one that came again holds %v instead of %v", now, held)
	}
	if now := first.Tally().changes(); now != seen {
		return "", fmt.Errorf("%d rebalances of the other", now-seen)
	}
	return "the same partitions again, and no rebalance for the other", nil
}

func (p *party) groupResume(ctx context.Context) (string, error) {
	first, err := p.join(ctx)
	if err != nil {
		return "", err
	}
	if err := p.write(ctx); err != nil {
		return "", err
	}
	if err := p.read(ctx); err != nil {
		return "", err
	}
	commits := map[Place]Commit{}
	for _, place := range p.places {
		commits[place] = Commit{Offset: 1 + int64(place.Partition)}
	}
	if err := first.Commit(ctx, commits); err != nil {
		return "", err
	}
	p.leave(first)
	p.again(func(place Place) int64 { return commits[place].Offset })
	if _, err := p.join(ctx); err != nil {
		return "", err
	}
	if err := p.read(ctx); err != nil {
		return "", err
	}
	for place, commit := range commits {
		if err := p.expectCommitted(ctx, place, commit); err != nil {
			return "", err
		}
	}
	return "a new member goes on behind the committed offsets", nil
}

func (p *party) groupMetadata(ctx context.Context) (string, error) {
	member, err := p.join(ctx)
	if err != nil {
		return "", err
	}
	if err := p.settled(ctx, 0); err != nil {
		return "", err
	}
	// Counted in characters: the third has 7000 bytes.
	texts := []string{"", "plain", strings.Repeat("не ASCII", 500), strings.Repeat("x", 4096)}
	commits := map[Place]Commit{}
	for i, place := range p.places {
		commits[place] = Commit{int64(i), texts[i]}
	}
	if err := member.Commit(ctx, commits); err != nil {
		return "", err
	}
	for place, commit := range commits {
		if err := p.expectCommitted(ctx, place, commit); err != nil {
			return "", err
		}
	}
	over := map[Place]Commit{p.places[0]: {9, strings.Repeat("x", 4097)}}
	if err := p.refused(member.Commit(ctx, over), offsetMetadataTooLarge); err != nil {
		return "", err
	}
	return "empty, plain, not ASCII, 4096 characters; one more refused",
		p.expectCommitted(ctx, p.places[0], commits[p.places[0]])
}

func (p *party) groupReset(ctx context.Context) (string, error) {
	member, err := p.join(ctx)
	if err != nil {
		return "", err
	}
	if err := p.exchange(ctx); err != nil {
		return "", err
	}
	commits := map[Place]Commit{}
	for _, place := range p.places {
		commits[place] = Commit{Offset: 1 + int64(place.Partition)}
	}
	if err := p.refused(p.client.SetOffsets(ctx, p.membership.Group, commits), unknownMemberID); err != nil {
		return "", err
	}
	p.leave(member)
	if err := p.client.SetOffsets(ctx, p.membership.Group, commits); err != nil {
		return "", err
	}
	p.again(func(place Place) int64 { return commits[place].Offset })
	if _, err := p.join(ctx); err != nil {
		return "", err
	}
	return "refused while there is a member; then the next begins where it was told", p.read(ctx)
}

// expectState waits for it: members may just have left.
func (p *party) expectState(ctx context.Context, want string) error {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	for {
		state, members, err := p.client.DescribeGroup(ctx, p.membership.Group, p.membership.Consumer)
		if err == nil && state == want && len(members) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("state %s with %v instead of %s: %v", state, members, want, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (p *party) groupAdmin(ctx context.Context) (string, error) {
	want := map[string][]Place{}
	for _, id := range []string{"member-0", "member-1"} {
		if _, err := p.joinAs(ctx, func(m *Membership) { m.ClientID = id }); err != nil {
			return "", err
		}
	}
	if err := p.settled(ctx, 0); err != nil {
		return "", err
	}
	for i, member := range p.members {
		want[fmt.Sprintf("member-%d", i)] = member.Tally().held()
	}
	group := p.membership.Group
	groups, err := p.client.ListGroups(ctx)
	if err != nil {
		return "", err
	}
	if state, listed := groups[group]; !listed || state != "Stable" && state != "" {
		return "", fmt.Errorf("listed: %v, state %q", listed, state)
	}
	state, members, err := p.client.DescribeGroup(ctx, group, p.membership.Consumer)
	if err != nil {
		return "", err
	}
	if state != "Stable" || !maps.EqualFunc(members, want, slices.Equal) {
		return "", fmt.Errorf("%s with %v instead of %v", state, members, want)
	}
	for _, member := range slices.Clone(p.members) {
		p.leave(member)
	}
	if err := p.expectState(ctx, "Empty"); err != nil {
		return "", err
	}
	state, members, err = p.client.DescribeGroup(ctx, "there is no such group", p.membership.Consumer)
	if err == nil && (state != "Dead" || len(members) > 0) {
		err = fmt.Errorf("no group is %s with %v", state, members)
	}
	return "listed; described with its members, without them, and when there is none", err
}

func (p *party) groupDelete(ctx context.Context) (string, error) {
	member, err := p.join(ctx)
	if err != nil {
		return "", err
	}
	if err := p.exchange(ctx); err != nil {
		return "", err
	}
	group := p.membership.Group
	if err := p.refused(p.client.DeleteGroup(ctx, group), nonEmptyGroup); err != nil {
		return "", err
	}
	p.leave(member)
	if err := p.client.DeleteGroup(ctx, group); err != nil {
		return "", err
	}
	groups, err := p.client.ListGroups(ctx)
	if err != nil {
		return "", err
	}
	if _, listed := groups[group]; listed {
		return "", errors.New("still in the list")
	}
	if err := p.refused(p.client.DeleteGroup(ctx, group), groupIDNotFound); err != nil {
		return "", err
	}
	p.again(func(Place) int64 { return 0 })
	if _, err := p.join(ctx); err != nil {
		return "", err
	}
	return "refused while there is a member; then gone, and a new one begins at the start", p.read(ctx)
}

func (p *party) groupDeleteOffsets(ctx context.Context) (string, error) {
	member, err := p.join(ctx)
	if err != nil {
		return "", err
	}
	if err := p.exchange(ctx); err != nil {
		return "", err
	}
	group, gone := p.membership.Group, p.places[:1]
	if err := p.refused(p.client.DeleteOffsets(ctx, group, gone), groupSubscribedToTopic); err != nil {
		return "", err
	}
	p.leave(member)
	if err := p.client.DeleteOffsets(ctx, group, gone); err != nil {
		return "", err
	}
	for i, place := range p.places {
		want := Commit{Offset: 5}
		if i == 0 {
			want.Offset = -1
		}
		if err := p.expectCommitted(ctx, place, want); err != nil {
			return "", err
		}
	}
	return "refused while there is a member; then that one gone and the others there", nil
}

func (p *party) groupRegex(ctx context.Context) (string, error) {
	add := func(name string) error {
		topic, err := p.newTopic(ctx, name, 1, nil)
		p.places = append(p.places, Place{topic, 0})
		return err
	}
	p.places = nil
	p.membership.Topics = nil
	p.membership.Pattern = "^" + p.prefix + "-regex-[a-z]+$"
	if _, err := p.newTopic(ctx, "regex-1", 1, nil); err != nil {
		return "", err
	}
	for i, name := range []string{"regex-a", "regex-b"} {
		if err := add(name); err != nil {
			return "", err
		}
		if i == 0 {
			if _, err := p.join(ctx); err != nil {
				return "", err
			}
		}
		if err := p.settled(ctx, 0); err != nil {
			return "", err
		}
		if err := p.exchange(ctx); err != nil {
			return "", err
		}
	}
	return "a topic from before and one from after; none that does not match", nil
}

func (p *party) groupRestart(how string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		if _, _, err := p.joinTwo(ctx); err != nil {
			return "", err
		}
		if err := p.exchange(ctx); err != nil {
			return "", err
		}
		if err := p.restartBroker(how); err != nil {
			return "", err
		}
		ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
		defer cancel()
		// A member that finds the broker gone may join again, and begins at what is committed.
		p.repeats = true
		if err := p.exchange(ctx); err != nil {
			return "", err
		}
		if err := p.settled(ctx, 0); err != nil {
			return "", err
		}
		for _, place := range p.places {
			if err := p.expectCommitted(ctx, place, Commit{Offset: 10}); err != nil {
				return "", err
			}
		}
		return "the same members go on behind their commits", nil
	}
}

// group makes a check of what a party does.
func (s *suite) group(
	name string, membership Membership, run func(*party, context.Context) (string, error),
) named {
	kind := "group."
	if membership.Consumer {
		kind = "group848."
	}
	return named{kind + name, func(ctx context.Context) (string, error) {
		p, err := s.newParty(ctx, strings.ReplaceAll(name, ".", "-"), membership)
		if err != nil {
			return "", err
		}
		defer p.close()
		return run(p, ctx)
	}}
}

func (s *suite) groupChecks() []named {
	restart := func(how string) func(*party, context.Context) (string, error) {
		return func(p *party, ctx context.Context) (string, error) { return p.groupRestart(how)(ctx) }
	}
	classic, consumer := Membership{}, Membership{Consumer: true}
	// The old id of a member that comes back with a new one may be waited for.
	restarted := Membership{Session: shortSession}
	return []named{
		s.group("join", classic, (*party).groupJoin),
		s.group("rebalance", classic, (*party).groupRebalance),
		s.group("cooperative", Membership{Cooperative: true}, (*party).groupRebalance),
		s.group("leave", classic, (*party).groupLeave),
		s.group("crash", Membership{Session: shortSession}, (*party).groupCrash),
		s.group("static", classic, (*party).groupStatic),
		s.group("resume", classic, (*party).groupResume),
		s.group("metadata", classic, (*party).groupMetadata),
		s.group("reset", classic, (*party).groupReset),
		s.group("admin", classic, (*party).groupAdmin),
		s.group("delete", classic, (*party).groupDelete),
		s.group("delete_offsets", classic, (*party).groupDeleteOffsets),
		s.group("restart.clean", restarted, restart("clean")),
		s.group("restart.kill", restarted, restart("kill")),
		s.group("join", consumer, (*party).groupJoin),
		s.group("rebalance", consumer, (*party).groupRebalance),
		s.group("leave", consumer, (*party).groupLeave),
		s.group("crash", consumer, (*party).groupCrash),
		s.group("static", consumer, (*party).groupStatic),
		s.group("resume", consumer, (*party).groupResume),
		s.group("regex", consumer, (*party).groupRegex),
		s.group("admin", consumer, (*party).groupAdmin),
		s.group("delete", consumer, (*party).groupDelete),
		s.group("restart.clean", consumer, restart("clean")),
		s.group("restart.kill", consumer, restart("kill")),
	}
}
