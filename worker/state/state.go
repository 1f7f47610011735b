package state

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/metadata"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/observe/logging"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// Self is the identity of this member. It does not change.
type Self struct {
	Process   proc.Identity
	Address   roster.Address
	BootID    string
	ClusterID uint64
	Version   string
}

// ID is the member as others know it.
func (s Self) ID() roster.ID {
	return roster.ID{Address: s.Address, PID: s.Process.PID, StartTime: s.Process.StartTime}
}

// Loop feeds events to the core.
type Loop interface {
	// Post queues an event. It never blocks.
	Post(core.Event)
	// Do queues a function, which is called after the events that were posted before it.
	Do(func())
	// Put is Post without waking the loop, for a caller that then calls Feed.
	Put(core.Event)
	// Feed feeds all queued events to the core on the caller's goroutine, unless another
	// goroutine is doing so. It is for the few events that every write waits for. The caller
	// must not hold a lock, since any effect may be carried out.
	Feed()
}

// State is the part of the loop's state that other goroutines read.
type State struct {
	// Leading is set once, when the member becomes leader. Leads is closed at that moment.
	Leading atomic.Bool
	Leads   chan struct{}
	// Epoch is the epoch that this member leads, or 0 before it leads.
	Epoch     atomic.Uint64
	Committed atomic.Uint64 // the last index that may be applied
	Applied   atomic.Uint64 // the last index that was applied
	// RetainFrom is the first index of the log that other members may need, or 0 if not known.
	RetainFrom atomic.Uint64

	deaths    atomic.Pointer[wire.Deaths]
	published atomic.Pointer[Published]
}

// Published is the current roster in all the forms that are used.
type Published struct {
	Roster   *roster.Roster
	Bytes    []byte      // as sent with messages between members
	Metadata metadata.MD // as sent with responses to clients
	Version  uint64      // is greater with each roster that is published
}

// New returns the state of a member that knows no other member.
func New() *State {
	s := &State{Leads: make(chan struct{})}
	s.SetDeaths(nil)
	s.Publish(&roster.Roster{})
	return s
}

// Publish makes r the current roster.
func (s *State) Publish(r *roster.Roster) {
	p := &Published{Roster: r, Bytes: wire.EncodeRoster(r), Metadata: rosterMetadata(r), Version: 1}
	if before := s.published.Load(); before != nil {
		p.Version = before.Version + 1
	}
	s.published.Store(p)
}

// Published returns the current roster in all its forms.
func (s *State) Published() *Published { return s.published.Load() }

// Roster returns the current roster.
func (s *State) Roster() *roster.Roster { return s.Published().Roster }

// RosterBytes returns the current roster, encoded.
func (s *State) RosterBytes() []byte { return s.Published().Bytes }

// CurrentEpoch returns the current epoch. For a leader it is its own.
func (s *State) CurrentEpoch() uint64 { return max(s.Epoch.Load(), s.Roster().Epoch) }

// SetDeaths sets the list of the last deaths.
func (s *State) SetDeaths(d []core.Death) { s.deaths.Store(wire.FromDeaths(d)) }

// Deaths returns the last deaths as a message.
func (s *State) Deaths() *wire.Deaths { return s.deaths.Load() }

func rosterMetadata(r *roster.Roster) metadata.MD {
	heir := ""
	if a, ok := r.Heir(); ok {
		heir = a.String()
	}
	members := make([]string, 0, len(r.Members))
	for _, m := range r.Members {
		members = append(members, m.Address.String()+"="+m.State.String())
	}
	leader := ""
	if r.Leader.IsValid() {
		leader = r.Leader.String()
	}
	return metadata.Pairs(
		"dynast-leader", leader,
		"dynast-heir", heir,
		"dynast-members", strings.Join(members, ","),
		"dynast-epoch", fmt.Sprint(r.Epoch),
	)
}

// Settings holds the configuration.
type Settings struct {
	// Start is the configuration that the member was started with. Fields that cannot change
	// at run time are read from here.
	Start *config.Config
	live  atomic.Pointer[config.Config]
}

// NewSettings returns Settings with the configuration of the start.
func NewSettings(c *config.Config) *Settings {
	s := &Settings{Start: c}
	s.live.Store(c)
	return s
}

// Now returns the current configuration.
func (s *Settings) Now() *config.Config { return s.live.Load() }

// Swap applies a configuration and returns the previous one.
func (s *Settings) Swap(c *config.Config) *config.Config { return s.live.Swap(c) }

// Shared is what every part of a member gets. It gives no access to the other parts.
type Shared struct {
	Self Self
	*State
	*Fate
	Loop
	Settings *Settings
	Dir      *datadir.Dir
	Logs     *logging.Logs
	Log      hclog.Logger
	// Tell records an event of this member in the cluster's history.
	Tell func(kind, detail string)
}

// Note logs that a note for the next process could not be written to a slot. The next process
// then finds out by itself, or is asked again.
func (s *Shared) Note(err error) {
	if err != nil {
		s.Log.Error("cannot leave a note for the next process", "error", err)
	}
}

// OtherHost explains why a process on another host cannot be a member.
func (s *Shared) OtherHost(peer roster.Address) error {
	if s.Self.Address.Addr().IsLoopback() {
		return fmt.Errorf("%s is on another host, and this cluster's members are on loopback: %s names a process on this host only. "+
			"Followers share the data directory with their leader; set member.host to a routable address for members on several hosts", peer, s.Self.Address.Addr())
	}
	return fmt.Errorf("%s is on another host: followers share the data directory %s with their leader", peer, s.Settings.Start.DataDir)
}
