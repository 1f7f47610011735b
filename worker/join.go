package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/files"
	"github.com/dynast-io/dynast/worker/operate"
)

// JoinArgs are the arguments of a follower that an operator starts.
type JoinArgs struct {
	Leader roster.Address
	// Address is this member's address; the zero value means the next free port.
	Address roster.Address
}

// Join runs this process as a follower of the leader that args names. It makes two requests to
// the leader. The first one asks for the roster and the configuration, which determine this
// member's address. The second one names that address, and gets a slot and the sockets.
func Join(opts Options, args JoinArgs) (core.ExitCode, error) {
	dir, err := datadir.Open(opts.Config.DataDir, false)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%w; a follower shares the data directory with its leader: give the leader's with --data-dir", err)
		}
		return core.ExitUnreachable, err
	}
	c, err := dir.DialHandoff(context.Background())
	if err != nil {
		return core.ExitUnreachable, fmt.Errorf("no leader serves the data directory %s ('dynast up' starts one): %w", dir.Path(), err)
	}
	defer c.Close()
	resp, _, err := requestHandoff(c, &wire.HandoffRequest{})
	if err != nil {
		return core.ExitUnreachable, err
	}
	ros, err := wire.DecodeRoster(resp.Roster)
	if err != nil {
		return core.ExitError, err
	}
	if ros.Leader != args.Leader {
		return core.ExitUnreachable, fmt.Errorf("%s does not lead the cluster in %s: its leader is %s", args.Leader, dir.Path(), ros.Leader)
	}
	if opts.Config, err = joinConfig(opts.Config, resp.Config); err != nil {
		return core.ExitError, err
	}
	if err := os.Setenv(member.SourceEnv, resp.Source); err != nil {
		return core.ExitError, err
	}
	if err := files.Check(int(files.Followers(ros))+1, opts.Config.Services); err != nil {
		return member.ExitUsage, err
	}
	listener, err := joinListener(opts.Config, ros, args.Address)
	if err != nil {
		return core.ExitError, err
	}
	boot, err := proc.BootID()
	if err != nil {
		return core.ExitError, err
	}
	self := proc.Self()
	me := roster.Member{ID: roster.ID{Address: listener.Addr().(*net.TCPAddr).AddrPort(), PID: self.PID, StartTime: self.StartTime}, Version: opts.Version}
	resp, received, err := requestHandoff(c, &wire.HandoffRequest{Member: wire.FromMember(me), BootId: boot})
	if err != nil {
		return core.ExitUnreachable, err
	}
	names := resp.Listeners
	if len(received) < len(names) {
		return core.ExitError, fmt.Errorf("join: the leader passed on %d descriptors for %q", len(received), names)
	}
	shared, err := member.NameListeners(names, received[:len(names)])
	if err != nil {
		return core.ExitError, fmt.Errorf("join: %w", err)
	}
	if ros, err = wire.DecodeRoster(resp.Roster); err != nil {
		return core.ExitError, err
	}
	if err := setSocketDir(dir); err != nil {
		return core.ExitError, err
	}
	return follow(opts, ros, int(resp.Slot), shared, listener, true)
}

// joinConfig returns the leader's configuration, so that this follower would lead in the same
// way. The member host and the log settings stay this process's own.
func joinConfig(own *config.Config, leaders []byte) (*config.Config, error) {
	cfg, err := config.Decode(leaders)
	if err != nil {
		return nil, fmt.Errorf("join: the leader's configuration: %w", err)
	}
	cfg.Member.Host, cfg.Log = own.Member.Host, own.Log
	return cfg, nil
}

// requestHandoff sends a request to the hand-off socket of the leader, and returns the answer
// with the descriptors that came with it.
func requestHandoff(c *net.UnixConn, req *wire.HandoffRequest) (*wire.HandoffResponse, []*os.File, error) {
	_ = c.SetDeadline(time.Now().Add(operate.HandoffTimeout))
	b, err := proto.Marshal(req)
	if err != nil {
		return nil, nil, err
	}
	if err := proc.SendFiles(c, b); err != nil {
		return nil, nil, fmt.Errorf("join: %w", err)
	}
	b, files, err := proc.ReceiveFiles(c, operate.HandoffMax)
	if err != nil {
		return nil, nil, fmt.Errorf("join: %w", err)
	}
	var resp wire.HandoffResponse
	if err := proto.Unmarshal(b, &resp); err != nil {
		return nil, nil, fmt.Errorf("join: %w", err)
	}
	if resp.Error != "" {
		return nil, nil, fmt.Errorf("join: refused: %s", strings.TrimSpace(resp.Error))
	}
	return &resp, files, nil
}
