package api

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// TestMaintenanceSameAsEtcd sends the same random requests of the services Maintenance, Cluster
// and Lease to a real etcd and to an API. Between them are writes and reads, which alarms
// refuse. The answers must be the same.
func TestMaintenanceSameAsEtcd(t *testing.T) {
	seed := newSeed(t)
	ours := serve(t, nil)
	their, our := dial(t, startEtcd(t)), dial(t, ours.address)
	grantLease(t, ours)
	g := &maintenanceGenerator{&generator{Rand: rand.New(rand.NewPCG(seed, 3))}}
	kinds := map[string]int{}
	for i := range *stepsFlag / 2 {
		s := g.next(t)
		got, want := compare(t, fmt.Sprintf("seed %d step %d: %s", seed, i, s.what), s, our, their)
		kinds[s.kind+": "+status.Convert(want.err).Message()]++
		if got.err == nil {
			g.learn([]proto.Message{want.msg})
		}
	}
	for kind, n := range kinds {
		t.Logf("%5d %s", n, kind)
	}
	for member := range uint64(13) {
		for kind := range 3 {
			r := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: member, Alarm: pb.AlarmType(kind)}
			compare(t, "at the end", kindOfStep{step{"disarm", invoke("Maintenance/Alarm", r)}, "disarm"}, our, their)
		}
	}
	compare(t, "at the end", kindOfStep{leaseStep(&pb.LeaseGrantRequest{ID: leaseID, TTL: 3600}), "lease"}, our, their)
	for i := range 20 { // so that there is something in the backups
		s := invoke("KV/Put", &pb.PutRequest{Key: fmt.Append(nil, "last", i), Value: []byte("v"), Lease: leaseID})
		if got, _ := compare(t, "at the end", kindOfStep{step{"put", s}, "put"}, our, their); got.err != nil {
			t.Fatal(got.err)
		}
	}
	sameSnapshots(t, our, their)
}

// outcome is the result of a step.
type outcome struct {
	msg proto.Message
	err error
}

// kindOfStep is a step and the name under which it is counted.
type kindOfStep struct {
	step
	kind string
}

// compare sends a step to both and compares the results.
func compare(t *testing.T, what string, s kindOfStep, our, their *grpc.ClientConn) (got, want outcome) {
	t.Helper()
	for conn, a := range map[*grpc.ClientConn]*outcome{our: &got, their: &want} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		a.msg, a.err = s.send(ctx, conn)
		cancel()
	}
	if status.Code(got.err) != status.Code(want.err) || status.Convert(got.err).Message() != status.Convert(want.err).Message() {
		t.Fatalf("%s\nours: %v\netcd: %v", what, got.err, want.err)
	}
	if want.err != nil {
		return got, want
	}
	if d := difference([]proto.Message{plain(got.msg)}, []proto.Message{plain(want.msg)}); d != "" {
		t.Fatalf("%s\n%s", what, d)
	}
	return got, want
}

// plain removes from an answer what naturally differs: sizes, positions in a log, the members,
// and the order of alarms, which etcd keeps in a map.
func plain(m proto.Message) proto.Message {
	switch m := m.(type) {
	case *pb.StatusResponse:
		if m.Leader == m.Header.MemberId && m.DbSize > 0 && m.DbSizeInUse > 0 && m.RaftIndex >= m.RaftAppliedIndex && m.RaftAppliedIndex > 0 && m.RaftTerm > 0 {
			m.Leader, m.DbSize, m.DbSizeInUse, m.RaftIndex, m.RaftAppliedIndex, m.RaftTerm = 0, 0, 0, 0, 0, 0
		}
		slices.Sort(m.Errors)
	case *pb.AlarmResponse:
		slices.SortFunc(m.Alarms, func(a, b *pb.AlarmMember) int {
			return cmp.Or(cmp.Compare(a.MemberID, b.MemberID), cmp.Compare(a.Alarm, b.Alarm))
		})
	case *pb.LeaseTimeToLiveResponse:
		slices.SortFunc(m.Keys, bytes.Compare) // etcd has them in no order
	case *pb.LeaseLeasesResponse:
		// Leases are ordered by their remaining time, and so by the time of their grant or
		// renewal.
		slices.SortFunc(m.Leases, func(a, b *pb.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) })
	case *pb.HashResponse:
		m.Hash = 0 // of the whole file, with what belongs to the cluster
	case *pb.MemberListResponse:
		for _, mem := range m.Members {
			if mem.ID != 0 && mem.Name != "" && len(mem.PeerURLs) == 1 && !mem.IsLearner {
				m.Members = nil
				break
			}
		}
	}
	return m
}

// maintenanceGenerator makes the requests of a generator and requests of operators.
type maintenanceGenerator struct{ *generator }

func (g *maintenanceGenerator) next(t *testing.T) kindOfStep {
	t.Helper()
	of := func(m proto.Message, send func(context.Context, *grpc.ClientConn) (proto.Message, error)) kindOfStep {
		return kindOfStep{step{fmt.Sprintf("%T{%s}", m, prototext.Format(m)), send}, fmt.Sprintf("%T", m)}
	}
	switch n := g.IntN(100); {
	case n < 40:
		r := requestOf(g.write())
		return of(r.msg, func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			all, err := r.send(ctx, pb.NewKVClient(c))
			if err != nil {
				return nil, err
			}
			return all[0], nil
		})
	case n < 50:
		r := g.lease()
		return kindOfStep{leaseStep(r), fmt.Sprintf("%T", r)}
	case n < 65:
		r := g.alarm()
		return of(r, func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			return pb.NewMaintenanceClient(c).Alarm(ctx, r)
		})
	case n < 73:
		r := &pb.StatusRequest{}
		return of(r, func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			return pb.NewMaintenanceClient(c).Status(ctx, r)
		})
	case n < 85:
		r := &pb.HashKVRequest{Revision: g.hashRevision()}
		return of(r, func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			return pb.NewMaintenanceClient(c).HashKV(ctx, r)
		})
	case n < 88:
		r := &pb.HashRequest{}
		return of(r, func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			return pb.NewMaintenanceClient(c).Hash(ctx, r)
		})
	case n < 89:
		r := &pb.DefragmentRequest{}
		return of(r, func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			return pb.NewMaintenanceClient(c).Defragment(ctx, r)
		})
	case n < 95:
		r := g.downgrade()
		return of(r, func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			return pb.NewMaintenanceClient(c).Downgrade(ctx, r)
		})
	default:
		r := &pb.MemberListRequest{Linearizable: g.chance(50)}
		return of(r, func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			return pb.NewClusterClient(c).MemberList(ctx, r)
		})
	}
}

// lease returns a request for one of a few leases, which puts use too.
func (g *maintenanceGenerator) lease() proto.Message {
	id := leaseID + g.Int64N(5)
	switch g.IntN(6) {
	case 0, 1:
		return &pb.LeaseGrantRequest{ID: id, TTL: 3600 + g.Int64N(2)}
	case 2:
		return &pb.LeaseRevokeRequest{ID: id}
	case 3:
		return &pb.LeaseTimeToLiveRequest{ID: id, Keys: g.chance(80)}
	case 4:
		return &pb.LeaseKeepAliveRequest{ID: id}
	}
	return &pb.LeaseLeasesRequest{}
}

// write returns mostly a write. A compaction is waited for, so that hashes are of the same
// state.
func (g *maintenanceGenerator) write() proto.Message {
	switch n := g.IntN(100); {
	case n < 50:
		return g.put()
	case n < 65:
		return g.delete()
	case n < 85:
		return g.txn(0)
	case n < 95:
		return g.rangeRequest()
	}
	return &pb.CompactionRequest{Revision: g.oldRevision(), Physical: true}
}

// alarm uses members that do not exist, and disarms more often than it arms.
func (g *maintenanceGenerator) alarm() *pb.AlarmRequest {
	r := &pb.AlarmRequest{
		Action:   pb.AlarmRequest_AlarmAction(g.IntN(3)),
		MemberID: 10 + g.Uint64N(3),
		Alarm:    pb.AlarmType(g.IntN(3)),
	}
	if g.chance(70) {
		r.Action = pb.AlarmRequest_DEACTIVATE
	}
	return r
}

func (g *maintenanceGenerator) hashRevision() int64 {
	if g.chance(40) {
		return 0
	}
	return g.oldRevision()
}

func (g *maintenanceGenerator) downgrade() *pb.DowngradeRequest {
	versions := []string{"", "x", "3.7.0", "3.5.0", "3.5", "3.8.0", "4.0.0", "-1.0.0", "3", "03.5.0"}
	return &pb.DowngradeRequest{
		Action:  pb.DowngradeRequest_DowngradeAction(g.IntN(4)),
		Version: versions[g.IntN(len(versions))],
	}
}

// sameSnapshots checks that backups have the same content: every revision of every key, leases,
// users and roles, byte for byte.
func sameSnapshots(t *testing.T, our, their *grpc.ClientConn) {
	t.Helper()
	got, want := rowsOf(t, our), rowsOf(t, their)
	for _, b := range []string{"key", "lease", "alarm", "authUsers", "authRoles"} {
		if !slices.Equal(got[b], want[b]) {
			t.Errorf("bucket %s: %d rows, etcd's has %d, not the same", b, len(got[b]), len(want[b]))
		}
	}
	if len(want["key"]) < 10 || len(want["lease"]) < 1 {
		t.Errorf("there is hardly anything in the backups: %d keys, %d leases", len(want["key"]), len(want["lease"]))
	}
}

// rowsOf takes a backup, checks its format, and lists its content.
func rowsOf(t *testing.T, conn *grpc.ClientConn) map[string][]string {
	t.Helper()
	stream, err := pb.NewMaintenanceClient(conn).Snapshot(t.Context(), &pb.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var raw []byte
	left, last := uint64(0), []byte(nil)
	for first := true; ; first = false {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if m.Version != "3.7.0" || !first && left != 0 && m.RemainingBytes != left-uint64(len(m.Blob)) {
			t.Fatalf("version %q, %d bytes remain after %d of %d", m.Version, m.RemainingBytes, len(m.Blob), left)
		}
		left, last = m.RemainingBytes, m.Blob
		raw = append(raw, m.Blob...)
	}
	db := raw[:len(raw)-sha256.Size]
	if sum := sha256.Sum256(db); !bytes.Equal(sum[:], last) {
		t.Fatal("the last message is not the SHA-256 of the others")
	}
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, db, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	rows := map[string][]string{}
	err = b.View(func(tx *bolt.Tx) error {
		for _, bucket := range schema.AllBuckets {
			if in := tx.Bucket(bucket.Name()); in != nil {
				_ = in.ForEach(func(k, v []byte) error {
					rows[bucket.String()] = append(rows[bucket.String()], fmt.Sprintf("%x %x", k, v))
					return nil
				})
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}
