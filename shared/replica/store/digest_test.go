package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
)

// TestDigestIsEtcdsHashKV over random histories, at random revisions, before
// and after compactions, with and without a commit in between.
func TestDigestIsEtcdsHashKV(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	s := open(t, t.TempDir())
	feed(t, s, 1, put(t, "kept", "always")) // or etcd's would hash what a compaction has not removed yet
	compacted := int64(0)
	for round := range 60 {
		for range rng.IntN(40) {
			key := fmt.Sprint("k", rng.IntN(12))
			if rng.IntN(4) == 0 {
				feed(t, s, 1, data(t, &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}))
			} else {
				feed(t, s, 1, put(t, key, fmt.Sprint(round)))
			}
		}
		current := s.Revision()
		if rng.IntN(3) == 0 && current > compacted+1 {
			compacted += 1 + rng.Int64N(current-compacted)
			feed(t, s, 1, data(t, &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: compacted}}))
		}
		if rng.IntN(2) == 0 {
			s.Commit()
		}
		for _, rev := range []int64{0, current, max(compacted, 1) + rng.Int64N(current-max(compacted, 1)+1)} {
			want, _, err := s.KV().HashStorage().HashByRev(rev)
			if err != nil {
				t.Fatal(err)
			}
			if want.CompactRevision != compacted && compacted != 0 {
				continue // a number that etcd keeps from before that revision was compacted
			}
			got, err := s.Digest(t.Context(), rev)
			if err != nil || got.Hash != want.Hash || got.Revision != want.Revision || got.CompactRevision != want.CompactRevision {
				t.Fatalf("round %d, revision %d of %d, compacted %d: %+v, %v; etcd says %+v", round, rev, current, compacted, got, err, want)
			}
		}
	}
}

func TestDigestOfMissingRevisions(t *testing.T) {
	s := open(t, t.TempDir())
	for i := range 10 {
		feed(t, s, 1, put(t, "k", fmt.Sprint(i)))
	}
	feed(t, s, 1, data(t, &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: 6}}))
	if _, err := s.Digest(t.Context(), 5); !errors.Is(err, mvcc.ErrCompacted) {
		t.Errorf("of a compacted revision: %v", err)
	}
	if _, err := s.Digest(t.Context(), 12); !errors.Is(err, mvcc.ErrFutureRev) {
		t.Errorf("of a future revision: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Digest(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// TestDigestTellsReplicasApart: they differ in one value, one revision or one key.
func TestDigestTellsReplicasApart(t *testing.T) {
	history := func(change func(i int, s *Store)) Digest {
		s := open(t, t.TempDir())
		for i := range 50 {
			feed(t, s, 1, put(t, fmt.Sprint("k", i%7), fmt.Sprint(i)))
			change(i, s)
		}
		d, err := s.Digest(t.Context(), 51)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	none := func(int, *Store) {}
	want := history(none)
	if got := history(none); got != want {
		t.Errorf("the same history: %+v and %+v", got, want)
	}
	other := history(func(i int, s *Store) {
		if i == 20 {
			// This changes the file below the store, without an entry.
			tx := s.be.BatchTx()
			tx.Lock()
			defer tx.Unlock()
			ks, vs := tx.UnsafeRange(schema.Key, revisionKey(10), nil, 0)
			v := append([]byte{}, vs[0]...)
			v[len(v)-1] ^= 1
			tx.UnsafePut(schema.Key, ks[0], v)
		}
	})
	if other.Hash == want.Hash {
		t.Errorf("a flipped bit in a value is not seen")
	}
}
