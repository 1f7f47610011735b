package worker

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/systemd"
	"github.com/dynast-io/dynast/shared/wire"
)

const (
	// informTimeout bounds how long a reload waits for the followers to confirm
	// that they have the new configuration.
	informTimeout = 2 * time.Second
	informPause   = 2 * time.Millisecond
)

// config is the configuration in force.
func (m *Member) config() *config.Config { return m.live.Load() }

// checksum tells configurations apart. Log settings are left out: those of a
// member that an operator started are its own.
func checksum(c *config.Config) uint64 {
	d := *c
	d.Log, d.Member.Host = config.Log{}, ""
	h := fnv.New64a()
	_, _ = h.Write(d.Encode())
	return h.Sum64()
}

// configSum is the checksum of a configuration, which does not change.
type configSum struct {
	last *config.Config
	sum  uint64
}

func (s *configSum) of(c *config.Config) uint64 {
	if c != s.last {
		s.last, s.sum = c, checksum(c)
	}
	return s.sum
}

// reloadForSignal reloads for SIGHUP; the answer goes to the log.
func (m *Member) reloadForSignal() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*informTimeout)
	defer cancel()
	if _, err := m.reload(ctx, "signal: hangup"); err != nil {
		m.logger.Error("the configuration is not reloaded, nothing is changed", "error", status.Convert(err).Message())
	}
}

// reload reads the configuration again and puts into force, in all members, what can
// change while they run. The error is a gRPC status; nothing is changed then.
func (m *Member) reload(ctx context.Context, why string) (*wire.ReloadResponse, error) {
	m.reloading.Lock()
	defer m.reloading.Unlock()
	if word, err := systemd.Reloading(); err == nil {
		m.service.say(word)
		defer m.service.say(systemd.Ready)
	}
	next, file, err := m.opts.Reload()
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	merged, changed, restart, err := m.config().Merge(next)
	if err == nil {
		err = checkClientTLS(merged)
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	// First what can be refused. What an operator scaled to by hand ends here: the file says
	// how many there are to be.
	if merged.Followers != m.roster().Followers {
		answer, err := m.request(ctx, func(ref chan core.Answer) core.Event {
			return core.ScaleRequested{Followers: merged.Followers, Ref: ref}
		})
		if err != nil {
			return nil, err
		}
		changed = scaled(changed, answer)
	}
	m.configure(merged)
	m.downstream.tellConfig()
	resp := &wire.ReloadResponse{File: file, Changed: wireChanges(changed), Restart: wireChanges(restart)}
	informed, all := m.awaitInformed(ctx, checksum(merged))
	resp.Informed, resp.Followers = uint32(informed), uint32(all)
	m.logger.Info("the configuration is reloaded", "by", why, "file", file, "changed", changed, "needs_restart", restart, "informed", informed, "followers", all)
	return resp, nil
}

// scaled names the number of followers as it was kept, which is not what the file said
// before when an operator scaled since.
func scaled(changed []config.Change, a core.Answer) []config.Change {
	now := config.Change{Path: "followers", Before: fmt.Sprint(a.Before), After: fmt.Sprint(a.Followers)}
	for i := range changed {
		if changed[i].Path == now.Path {
			changed[i] = now
			return changed
		}
	}
	return append([]config.Change{now}, changed...)
}

func wireChanges(changes []config.Change) []*wire.ConfigChange {
	var out []*wire.ConfigChange
	for _, c := range changes {
		out = append(out, &wire.ConfigChange{Field: c.Path, Before: c.Before, After: c.After})
	}
	return out
}

// awaitInformed waits until all followers with a stream have confirmed: only then does
// the next leader certainly go by it.
func (m *Member) awaitInformed(ctx context.Context, sum uint64) (informed, all int) {
	deadline := time.Now().Add(informTimeout)
	for {
		informed, all = m.downstream.informed(sum)
		if informed == all || time.Now().After(deadline) {
			return informed, all
		}
		select {
		case <-time.After(informPause):
		case <-ctx.Done():
			return informed, all
		case <-m.ended:
			return informed, all
		}
	}
}

// tellConfig sends the configuration to all followers.
func (d *downstream) tellConfig() {
	d.each(func(s *session) { s.update(func() { s.config = true }) })
}

// informed counts the followers with a stream, and those of them that go by the
// configuration with this checksum.
func (d *downstream) informed(sum uint64) (informed, all int) {
	d.each(func(s *session) {
		s.mu.Lock()
		defer s.mu.Unlock()
		all++
		if s.informed == sum {
			informed++
		}
	})
	return informed, all
}

// configureAs takes over the leader's configuration, as far as it can change, and tells
// the leader so.
func (m *Member) configureAs(leaders []byte) error {
	next, err := config.Decode(leaders)
	if err != nil {
		return fmt.Errorf("the leader's configuration: %w", err)
	}
	own := m.config()
	if m.me.Load().ByHand {
		next.Log = own.Log
	}
	merged, changed, _, err := own.Merge(next)
	if err != nil {
		return fmt.Errorf("the leader's configuration: %w", err)
	}
	if len(changed) > 0 {
		m.configure(merged)
		m.logger.Info("goes by the leader's new configuration", "changed", changed)
	}
	m.upstream.heartbeat()
	return nil
}

// configure puts a configuration into force. It is called by one goroutine at a time.
func (m *Member) configure(cfg *config.Config) {
	before := m.live.Swap(cfg)
	if cfg.Log.Level != before.Log.Level {
		if err := m.logs.SetLevel(cfg.Log.Level); err != nil {
			m.logger.Warn("log level", "error", err)
		}
	}
	m.proposals.limit(cfg.Replication.QueueRequests, int(cfg.Replication.QueueBytes))
	if m.clientTLS != nil {
		m.clientTLS.SetFiles(clientFiles(cfg))
	}
	if cfg.Store.AutoCompaction != before.Store.AutoCompaction {
		if err := m.compaction.keep(cfg.Store.AutoCompaction); err != nil {
			m.fatal(core.ExitError, errors.Join(errors.New("automatic compaction"), err))
		}
	}
	m.post(core.Configured{MinSync: cfg.Replication.MinSync, StartTimeout: cfg.Spawn.Timeout})
}
