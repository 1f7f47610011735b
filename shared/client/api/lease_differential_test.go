package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// step is a request and its answer, without what naturally differs.
type step struct {
	what string
	send func(context.Context, *grpc.ClientConn) (proto.Message, error)
}

// TestLeasesAndLocksSameAsEtcd sends the same sequence of requests to a real etcd and to an
// API, and compares the answers.
func TestLeasesAndLocksSameAsEtcd(t *testing.T) {
	ours := serve(t, nil)
	grantLease(t, ours) // as startEtcd does
	their, our := dial(t, spawnEtcd(t)), dial(t, ours.address)
	for i, s := range slices.Concat(leaseSteps(), lockSteps(), electionSteps()) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		want, wantErr := s.send(ctx, their)
		got, gotErr := s.send(ctx, our)
		cancel()
		if status.Code(gotErr) != status.Code(wantErr) || status.Convert(gotErr).Message() != status.Convert(wantErr).Message() {
			t.Fatalf("step %d: %s\nours: %v\netcd: %v", i, s.what, gotErr, wantErr)
		}
		if wantErr != nil {
			continue
		}
		for _, m := range []proto.Message{got, want} {
			h := m.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader()
			h.ClusterId, h.MemberId, h.RaftTerm = 0, 0, 0
		}
		if !proto.Equal(got, want) {
			t.Fatalf("step %d: %s\nours: %s\netcd: %s", i, s.what, prototext.Format(got), prototext.Format(want))
		}
	}
}

// spawnEtcd starts a real etcd in a process of its own. Its services Lock and Election have a
// client that it never closes, which would look like a leak of this package.
func spawnEtcd(t *testing.T) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestEtcdProcess$")
	cmd.Env = append(os.Environ(), etcdProcess+"=1")
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close(); _ = cmd.Wait() })
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }() // until the process ends
	return strings.TrimSpace(address)
}

const etcdProcess = "DYNAST_TEST_ETCD_PROCESS"

// TestEtcdProcess is the process of spawnEtcd. It ends when its standard input ends.
func TestEtcdProcess(t *testing.T) {
	if os.Getenv(etcdProcess) == "" {
		t.Skip("not a test by itself")
	}
	fmt.Println(startEtcd(t))
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// leaseStep sends a message of the service Lease.
func leaseStep(r proto.Message) step {
	return step{fmt.Sprintf("%T{%s}", r, prototext.Format(r)), func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
		lc := pb.NewLeaseClient(c)
		switch r := proto.Clone(r).(type) {
		case *pb.LeaseGrantRequest:
			resp, err := lc.LeaseGrant(ctx, r)
			if err == nil && r.ID == 0 {
				if resp.ID <= 0 {
					return nil, errors.New("a lease's id is positive")
				}
				if _, err := lc.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: resp.ID}); err != nil {
					return nil, err
				}
				resp.ID = 0
			}
			return resp, err
		case *pb.LeaseRevokeRequest:
			return lc.LeaseRevoke(ctx, r)
		case *pb.LeaseTimeToLiveRequest:
			resp, err := lc.LeaseTimeToLive(ctx, r)
			if err == nil && resp.GrantedTTL-resp.TTL < 20 && resp.TTL > 0 {
				resp.TTL = resp.GrantedTTL // time passes
			}
			return resp, err
		case *pb.LeaseLeasesRequest:
			return lc.LeaseLeases(ctx, r)
		case *pb.LeaseKeepAliveRequest:
			stream, err := lc.LeaseKeepAlive(ctx)
			if err != nil {
				return nil, err
			}
			if err := errors.Join(stream.Send(r), stream.CloseSend()); err != nil {
				return nil, err
			}
			return stream.Recv()
		case *pb.PutRequest:
			return pb.NewKVClient(c).Put(ctx, r)
		case *pb.RangeRequest:
			return pb.NewKVClient(c).Range(ctx, r)
		}
		panic("not a request")
	}}
}

func leaseSteps() (out []step) {
	everything := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	for _, r := range []proto.Message{
		&pb.LeaseGrantRequest{ID: 1, TTL: 500}, &pb.LeaseGrantRequest{ID: 1, TTL: 500}, &pb.LeaseGrantRequest{TTL: 100},
		&pb.LeaseGrantRequest{ID: -7, TTL: 600}, &pb.LeaseGrantRequest{ID: 2, TTL: 9000000001}, &pb.LeaseGrantRequest{ID: 2, TTL: 9000000000},
		&pb.LeaseGrantRequest{TTL: 0}, &pb.LeaseGrantRequest{TTL: -5}, &pb.LeaseGrantRequest{TTL: 1},
		&pb.PutRequest{Key: []byte("a"), Lease: 1}, &pb.PutRequest{Key: []byte("b"), Lease: -7}, &pb.PutRequest{Key: []byte("c"), Lease: 999},
		&pb.LeaseTimeToLiveRequest{ID: 1}, &pb.LeaseTimeToLiveRequest{ID: 1, Keys: true}, &pb.LeaseTimeToLiveRequest{ID: 999, Keys: true},
		&pb.LeaseTimeToLiveRequest{}, &pb.LeaseTimeToLiveRequest{ID: 2, Keys: true},
		&pb.LeaseLeasesRequest{}, &pb.LeaseKeepAliveRequest{ID: 1}, &pb.LeaseKeepAliveRequest{ID: -7}, &pb.LeaseKeepAliveRequest{ID: 999},
		&pb.LeaseKeepAliveRequest{},
		// A key moves to another lease, and no longer belongs to the first.
		&pb.PutRequest{Key: []byte("b"), Lease: 1}, &pb.LeaseRevokeRequest{ID: -7}, everything, &pb.LeaseRevokeRequest{ID: -7},
		&pb.PutRequest{Key: []byte("b"), IgnoreLease: true, Value: []byte("2")}, &pb.PutRequest{Key: []byte("a")},
		&pb.LeaseRevokeRequest{ID: 1}, everything, &pb.LeaseRevokeRequest{}, &pb.LeaseRevokeRequest{ID: 999}, &pb.LeaseLeasesRequest{},
		&pb.LeaseGrantRequest{ID: 1, TTL: 700}, &pb.LeaseTimeToLiveRequest{ID: 1, Keys: true},
	} {
		out = append(out, leaseStep(r))
	}
	return out
}

func lockSteps() []step {
	lock := func(name string, id int64) step {
		return step{fmt.Sprintf("lock %q %d", name, id), func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			return v3lockpb.NewLockClient(c).Lock(ctx, &v3lockpb.LockRequest{Name: []byte(name), Lease: id})
		}}
	}
	unlock := func(key string) step {
		return step{fmt.Sprintf("unlock %q", key), func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			return v3lockpb.NewLockClient(c).Unlock(ctx, &v3lockpb.UnlockRequest{Key: []byte(key)})
		}}
	}
	return []step{
		lock("l", 1), lock("l", 1), lock("l", 999), lock("", 1), lock("l2", 1),
		unlock("l/1"), unlock("l/1"), unlock(""), lock("l", 1), unlock("l/1"),
		{"lock without a lease", func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			r, err := v3lockpb.NewLockClient(c).Lock(ctx, &v3lockpb.LockRequest{Name: []byte("own")})
			if err == nil {
				r.Key = nil // it has the lease's id
			}
			return r, err
		}},
	}
}

func electionSteps() []step {
	election := func(what string, send func(context.Context, v3electionpb.ElectionClient) (proto.Message, error)) step {
		return step{what, func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			return send(ctx, v3electionpb.NewElectionClient(c))
		}}
	}
	type client = v3electionpb.ElectionClient
	name := []byte("e")
	var won *v3electionpb.LeaderKey
	leader := election("leader", func(ctx context.Context, c client) (proto.Message, error) {
		return c.Leader(ctx, &v3electionpb.LeaderRequest{Name: name})
	})
	campaign := func(id int64, value string) step {
		return election(fmt.Sprintf("campaign %d %q", id, value), func(ctx context.Context, c client) (proto.Message, error) {
			r, err := c.Campaign(ctx, &v3electionpb.CampaignRequest{Name: name, Lease: id, Value: []byte(value)})
			if err == nil {
				won = r.Leader
			}
			return r, err
		})
	}
	proclaim := election("proclaim", func(ctx context.Context, c client) (proto.Message, error) {
		return c.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: won, Value: []byte("new")})
	})
	resign := election("resign", func(ctx context.Context, c client) (proto.Message, error) {
		return c.Resign(ctx, &v3electionpb.ResignRequest{Leader: won})
	})
	observe := election("observe", func(ctx context.Context, c client) (proto.Message, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := c.Observe(ctx, &v3electionpb.LeaderRequest{Name: name})
		if err != nil {
			return nil, err
		}
		return stream.Recv()
	})
	return []step{
		leader, proclaim, resign, campaign(999, "x"), campaign(1, "a"), campaign(1, "a"), leader, observe,
		campaign(1, "b"), leader, proclaim, leader, observe, resign, leader, proclaim, resign, campaign(1, ""), leader,
	}
}
