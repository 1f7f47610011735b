package worker

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/systemd"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/worker/serve"
	"github.com/dynast-io/dynast/worker/state"
)

const (
	// informTimeout bounds how long a reload waits until the followers confirm the new
	// configuration.
	informTimeout = 2 * time.Second
	informPause   = 2 * time.Millisecond
)

// reloader applies configurations. In a leader it applies what an operator has changed, in a
// follower what the leader sends.
type reloader struct {
	*state.Shared
	read    func() (cfg *config.Config, file string, err error)
	replica interface{ Configure(*config.Config) }
	clients interface {
		Configure(cfg, before *config.Config)
	}
	links interface {
		TellConfig()
		Informed(sum uint64) (informed, all int)
	}
	say func(words ...string) // notifies the service manager
	// services are the user's.
	services interface {
		configure(ctx context.Context, services []config.Service, dry bool) (member.ServiceChanges, error)
	}
	scale func(ctx context.Context, followers int, relative bool) (core.Answer, error)

	mu      sync.Mutex // one reload at a time
	leaders []byte     // the configuration that the leader sent last
}

// reloadForSignal reloads for SIGHUP and logs the result.
func (r *reloader) reloadForSignal() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*informTimeout)
	defer cancel()
	if _, err := r.reload(ctx, "signal: hangup", false); err != nil {
		r.Log.Error("reload failed, nothing was changed", "error", status.Convert(err).Message())
	}
}

// reload reads the configuration again and applies, in all members, the fields that can change
// at run time. The error is a gRPC status; in that case nothing has changed.
func (r *reloader) reload(ctx context.Context, why string, dry bool) (*wire.ReloadResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if dry {
		return r.preview(ctx)
	}
	if word, err := systemd.Reloading(); err == nil {
		r.say(word)
		defer r.say(systemd.Ready)
	}
	p, err := r.plan()
	if err != nil {
		return nil, err
	}
	merged, changed := p.merged, p.changed
	// The change of the follower count comes first, because it can be refused. A count that an
	// operator set by hand is replaced: the file now sets it.
	if merged.Followers != r.Roster().Followers {
		answer, err := r.scale(ctx, merged.Followers, false)
		if err != nil {
			return nil, err
		}
		changed = scaled(changed, answer)
	}
	r.configure(merged)
	r.links.TellConfig()
	resp := &wire.ReloadResponse{File: p.file, Changed: wireChanges(changed), Restart: wireChanges(p.restart)}
	services, err := r.services.configure(ctx, merged.Services, false)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	addServices(resp, services)
	informed, all := r.awaitInformed(ctx, state.Checksum(merged))
	resp.Informed, resp.Followers = uint32(informed), uint32(all)
	r.Log.Info("reloaded the configuration", "by", why, "file", p.file, "changed", changed, "needs_restart", p.restart, "informed", informed, "followers", all)
	return resp, nil
}

// plan is what a reload would do.
type plan struct {
	file             string
	merged           *config.Config
	changed, restart []config.Change
}

// plan reads the configuration again. The error is a gRPC status.
func (r *reloader) plan() (p plan, err error) {
	next, file, err := r.read()
	if err != nil {
		return p, status.Error(codes.InvalidArgument, err.Error())
	}
	p.file = file
	p.merged, p.changed, p.restart, err = r.Settings.Now().Merge(next)
	if err == nil {
		err = serve.CheckTLS(p.merged)
	}
	if err != nil {
		return p, status.Error(codes.InvalidArgument, err.Error())
	}
	return p, nil
}

// preview says what a reload would do.
func (r *reloader) preview(ctx context.Context) (*wire.ReloadResponse, error) {
	p, err := r.plan()
	if err != nil {
		return nil, err
	}
	services, err := r.services.configure(ctx, p.merged.Services, true)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	resp := &wire.ReloadResponse{File: p.file, Changed: wireChanges(p.changed), Restart: wireChanges(p.restart)}
	addServices(resp, services)
	return resp, nil
}

func addServices(r *wire.ReloadResponse, c member.ServiceChanges) {
	r.ServicesAdded, r.ServicesRemoved, r.ServicesRestarted, r.ServicesChanged = c.Added, c.Removed, c.Restarted, c.Changed
}

// scaled corrects the change of "followers": the count before may differ from the old file's if
// an operator scaled since.
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

// awaitInformed waits until all followers with a stream have confirmed the configuration. Only
// then is the next leader certain to use it.
func (r *reloader) awaitInformed(ctx context.Context, sum uint64) (informed, all int) {
	deadline := time.Now().Add(informTimeout)
	for {
		informed, all = r.links.Informed(sum)
		if informed == all || time.Now().After(deadline) {
			return informed, all
		}
		select {
		case <-time.After(informPause):
		case <-ctx.Done():
			return informed, all
		case <-r.Ended():
			return informed, all
		}
	}
}

// configureAs applies the leader's configuration as far as it can change at run time. A member
// that an operator started keeps its own log settings.
func (r *reloader) configureAs(leaders []byte, byHand bool) error {
	r.mu.Lock() // an earlier stream may be about to end
	defer r.mu.Unlock()
	if bytes.Equal(leaders, r.leaders) {
		return nil // the next leader has the same one
	}
	next, err := config.Decode(leaders)
	if err != nil {
		return fmt.Errorf("the leader's configuration: %w", err)
	}
	own := r.Settings.Now()
	if byHand {
		next.Log = own.Log
	}
	merged, changed, _, err := own.Merge(next)
	if err != nil {
		return fmt.Errorf("the leader's configuration: %w", err)
	}
	if len(changed) > 0 {
		r.configure(merged)
		r.Log.Info("applied the leader's new configuration", "changed", changed)
	}
	r.leaders = leaders
	return nil
}

// configure applies a configuration. Only one goroutine calls it at a time.
func (r *reloader) configure(cfg *config.Config) {
	before := r.Settings.Swap(cfg)
	if cfg.Log.Level != before.Log.Level {
		if err := r.Logs.SetLevel(cfg.Log.Level); err != nil {
			r.Log.Warn("cannot set the log level", "error", err)
		}
	}
	r.replica.Configure(cfg)
	r.clients.Configure(cfg, before)
	r.Post(core.Configured{MinSync: cfg.Replication.MinSync, StartTimeout: cfg.Spawn.Timeout})
}
