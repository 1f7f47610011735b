package store

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/auth"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3alarm"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	"go.etcd.io/etcd/server/v3/etcdserver/cindex"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.uber.org/zap"

	"github.com/dynast-io/dynast/shared/entry"
	"github.com/dynast-io/dynast/shared/proc"
)

const (
	// DefaultCommitInterval is how long an applied entry may be missing in the
	// database file, if there is no reason to commit earlier.
	DefaultCommitInterval = time.Second
	// commitEntries is the number of changes after which a commit does not wait
	// for the interval.
	commitEntries = 10000
	// commitBytes is the size of entries after which neither does: they are in
	// memory until then, some of it twice.
	commitBytes = 16 << 20
	// minLeaseTTLSeconds is the floor of a lease's time to live, as etcd's with
	// its default settings.
	minLeaseTTLSeconds = 2
	// leaseRetryInterval is when an expired lease that is still there is
	// reported again.
	leaseRetryInterval = 3 * time.Second
	// DefaultTokenTTL is how long a simple token lives after its last use.
	DefaultTokenTTL = 5 * time.Minute
	simpleTokens    = "simple"
	bcryptCost      = 10
	// never is the interval in which etcd's backend commits by itself.
	never = 1000 * time.Hour
)

// Config says where a store is and how it behaves. Only Dir is needed.
type Config struct {
	// Dir holds the database file, Dir/db. It is created if it is missing.
	Dir string
	// QuotaBytes is the size in use from which on writes are refused, see Fits; 0
	// is etcd's default of 2 GiB, less than 0 is no limit.
	QuotaBytes int64
	// CommitInterval is DefaultCommitInterval if 0.
	CommitInterval time.Duration
	Logger         *zap.Logger
	// OpenTimeout is how long Open waits for another process to let go of the
	// file. 0 is as short as possible.
	OpenTimeout time.Duration
	// ClusterID and MemberID are what response headers show.
	ClusterID, MemberID uint64
	// AuthToken is the kind of tokens that users get, in the form of etcd's flag
	// --auth-token: "simple", or "jwt,sign-method=...,priv-key=FILE,...". Empty
	// is simple.
	AuthToken string
	// TokenTTL is DefaultTokenTTL if 0. JWTs have their own (option ttl).
	TokenTTL time.Duration
	// BcryptCost is the cost of hashing a password; 0 is etcd's.
	BcryptCost int
	// OnFatal is called when the database can't be written any more, or is found
	// to be damaged (ErrCorrupt), on any goroutine. It should end the process; if it
	// returns, the exit code is 1.
	OnFatal func(error)
}

// Path is the database file of a store in dir.
func Path(dir string) string { return filepath.Join(dir, "db") }

// Store is an open state machine.
type Store struct {
	cfg  Config
	lg   *zap.Logger
	hook *failureHook

	be     backend.Backend
	index  cindex.ConsistentIndexer
	kv     *watchable
	lessor lease.Lessor
	auth   auth.AuthStore
	alarms *v3alarm.AlarmStore
	quota  storage.Quota // for what a request costs
	uber   apply.UberApplier

	// readers has room for as many as may read the history at a time.
	readers chan struct{}

	// leading is set between Promote and Demote: somebody waits for results.
	leading atomic.Bool

	// uncommittedBytes is an upper bound, changed by Apply only.
	uncommittedBytes atomic.Int64
	room             room
	// decoded is a plain put on its way, used again for each; Apply's, too.
	decoded pb.InternalRaftRequest

	// dirty: an entry changed something since the last commit.
	dirty                        atomic.Bool
	stopCommitter, committerDone chan struct{}

	mu      sync.Mutex
	applied entry.Position
	// broken is set once and for all: by Close, or when etcd's code panicked
	// and may have left locks behind that nobody will ever free.
	broken error
}

// Open opens the store in cfg.Dir, and creates it if there is none.
func Open(cfg Config) (s *Store, err error) {
	if cfg.CommitInterval <= 0 {
		cfg.CommitInterval = DefaultCommitInterval
	}
	if cfg.AuthToken == "" {
		cfg.AuthToken = simpleTokens
	}
	if cfg.TokenTTL <= 0 {
		cfg.TokenTTL = DefaultTokenTTL
	}
	if cfg.BcryptCost <= 0 {
		cfg.BcryptCost = bcryptCost
	}
	path := Path(cfg.Dir)
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := verify(path, cfg.OpenTimeout); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s = &Store{cfg: cfg, readers: make(chan struct{}, runtime.GOMAXPROCS(0)), hook: &failureHook{onFatal: cfg.OnFatal}}
	s.lg = s.hook.logger(cfg.Logger)
	s.decoded.Put = &pb.PutRequest{}
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, openFailure(path, r)
		}
	}()
	if err := s.openBackend(path); err != nil {
		return nil, err
	}
	if err := removeUnfinished(path); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), s.be.Close())
	}
	if err := s.migrate(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), s.be.Close())
	}
	if err := s.assemble(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), s.be.Close())
	}
	s.hook.opened.Store(true)
	s.stopCommitter, s.committerDone = make(chan struct{}), make(chan struct{})
	go s.commitLoop()
	return s, nil
}

// removeUnfinished removes what a Defrag leaves whose process is killed: nobody
// else would, and each can be as large as the database. Who has the database open is
// the only one who could be writing such a file.
func removeUnfinished(path string) error {
	files, err := os.ReadDir(filepath.Dir(path))
	for _, f := range files {
		if strings.HasPrefix(f.Name(), filepath.Base(path)+".tmp.") {
			err = errors.Join(err, os.Remove(filepath.Join(filepath.Dir(path), f.Name())))
		}
	}
	return err
}

func (s *Store) openBackend(path string) error {
	s.index = cindex.NewConsistentIndex(nil)
	c := backend.DefaultBackendConfig(s.lg)
	c.Path = path
	c.BatchInterval = never // see commitLoop
	c.BatchLimit = commitEntries
	c.BackendFreelistType = bolt.FreelistMapType
	c.MmapSize = mmapBytes(s.cfg.QuotaBytes)
	c.Hooks = commitHook{Hooks: storage.NewBackendHooks(s.lg, s.index), committed: &s.room.committed, dirty: &s.dirty}
	// For bbolt 0 is "wait for ever".
	c.Timeout = max(s.cfg.OpenTimeout, time.Millisecond)
	s.be = backend.New(c)
	s.room.estimate(path)
	s.index.SetBackend(s.be)
	schema.CreateMetaBucket(s.be.BatchTx())
	return nil
}

// mmapBytes is the address space reserved for the file. A file that outgrows it
// has to be mapped anew, which waits for every reader and lets every reader
// wait; a snapshot on its way to a slow follower is such a reader. Address space
// costs nothing, so there is enough for a file at its quota. (Past 1 GiB bbolt
// rounds up to whole GiBs.)
func mmapBytes(quotaBytes int64) uint64 {
	switch {
	case quotaBytes == 0:
		quotaBytes = storage.DefaultQuotaBytes
	case quotaBytes < 0 || quotaBytes > math.MaxInt64/2:
		return backend.InitialMmapSize
	}
	return uint64(quotaBytes + quotaBytes/4 + 64<<20)
}

// assemble makes etcd's parts, in the order in which they need each other: the
// lessor before the store, which attaches keys to the leases that it finds; and
// the hook that counts entries last, when everything that is not an entry is
// written.
func (s *Store) assemble() error {
	s.applied.Index, s.applied.Epoch = schema.ReadConsistentIndex(s.be.ReadTx())
	s.lessor = lease.NewLessor(s.lg, s.be, formatVersion{}, lease.LessorConfig{
		MinLeaseTTL:                minLeaseTTLSeconds,
		CheckpointPersist:          true, // or each takeover would start every lease anew
		ExpiredLeasesRetryInterval: leaseRetryInterval,
	})
	s.kv = newWatchable(mvcc.NewStore(s.lg, s.be, s.lessor, mvcc.StoreConfig{}), s.lessor)
	tokens, err := auth.NewTokenProvider(nil, s.cfg.AuthToken, entryIsApplied, s.cfg.TokenTTL)
	if err != nil {
		return fmt.Errorf("token provider: %w", err)
	}
	s.auth = auth.NewAuthStore(s.lg, schema.NewAuthBackend(s.lg, s.be), tokens, s.cfg.BcryptCost)
	if s.cfg.AuthToken == simpleTokens {
		s.auth = newTokenStore(s.auth, s.lg, s.be, s.cfg.TokenTTL)
	}
	s.alarms, err = v3alarm.NewAlarmStore(s.lg, schema.NewAlarmBackend(s.lg, s.be))
	if err != nil {
		return fmt.Errorf("alarms: %w", err)
	}
	s.uber = s.newApplier()
	// After the applier's, so that the metrics have this one.
	s.quota = storage.NewBackendQuota(s.lg, s.cfg.QuotaBytes, s.be, "dynast")
	s.be.SetTxPostLockInsideApplyHook(s.countEntry)
	return nil
}

// CheckAuthToken reports what is wrong with a kind of tokens, its key files
// included, before anything is opened.
func CheckAuthToken(kind string) error {
	if _, err := auth.NewTokenProvider(nil, kind, entryIsApplied, DefaultTokenTTL); err != nil {
		return fmt.Errorf("tokens for users: %w", err)
	}
	return nil
}

// entryIsApplied answers a token provider that asks when an entry is applied
// here. A token's entry always is: tokens are checked by the leader, which has
// applied all that it ever answered.
func entryIsApplied(uint64) <-chan struct{} { return alwaysDone }

var alwaysDone = func() <-chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}()

// Close commits what is applied and closes the file. Snapshots must be closed
// before: it waits for them. Closing again does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	broken := s.broken
	s.broken = errClosed
	s.mu.Unlock()
	if broken == nil || !errors.Is(broken, errClosed) {
		close(s.stopCommitter)
	}
	if broken != nil {
		return nil // its locks may be held for ever; the file is consistent as it is
	}
	<-s.committerDone
	s.lessor.Stop()
	// A compaction that runs is interrupted, and goes on at the next Open.
	err := errors.Join(s.kv.Close(), s.auth.Close(), s.be.Close())
	if err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// Applied is the last entry applied, on disk or not.
func (s *Store) Applied() entry.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applied
}

// Durable is the last entry of which all effects are safe on disk: the log up
// to it is not needed any more by this store. It may wait for a commit.
func (s *Store) Durable() entry.Position {
	var p entry.Position
	p.Index, p.Epoch = schema.ReadConsistentIndex(s.be.ReadTx())
	return p
}

// Commit makes all that is applied durable. It writes nothing if it is so.
func (s *Store) Commit() {
	if s.Durable() != s.Applied() {
		s.be.ForceCommit()
	}
}

// Promote makes this store the leader's: leases expire here from now on, all
// of them extend later than they would have, and results are complete.
func (s *Store) Promote(extend time.Duration) {
	s.leading.Store(true)
	s.lessor.Promote(extend)
}

// Demote ends what Promote began.
func (s *Store) Demote() {
	s.lessor.Demote()
	s.leading.Store(false)
}

// KV is the key-value store, for reading; see NewWatchStream for watching.
func (s *Store) KV() mvcc.KV { return s.kv }

// Lessor has the leases.
func (s *Store) Lessor() lease.Lessor { return s.lessor }

// Auth has the users and roles.
func (s *Store) Auth() auth.AuthStore { return s.auth }

// Alarms has the active alarms.
func (s *Store) Alarms() *v3alarm.AlarmStore { return s.alarms }

// Logger is the store's logger, for etcd's functions that want one.
func (s *Store) Logger() *zap.Logger { return s.lg }

// ClusterID is what response headers show.
func (s *Store) ClusterID() uint64 { return s.cfg.ClusterID }

// MemberID is what response headers show.
func (s *Store) MemberID() uint64 { return s.cfg.MemberID }

// Revision is the store's current revision.
func (s *Store) Revision() int64 { return s.kv.Rev() }

// Size is the size of the database file in bytes.
func (s *Store) Size() int64 { return s.be.Size() }

// SizeInUse is the part of Size, in bytes, that is not free pages.
func (s *Store) SizeInUse() int64 { return s.be.SizeInUse() }

// Version is the version of the database's format.
func (s *Store) Version() string { return formatVersion{}.Version().String() }

// Defrag rewrites the database file without its free pages. Everything waits.
// It needs room for the copy: a disk that it filled would be full for every
// member, so it fails with ErrNoRoom before it begins.
func (s *Store) Defrag() error {
	free, err := proc.FreeBytes(s.cfg.Dir)
	if err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	if need := s.be.SizeInUse(); uint64(need)+uint64(need)/8 > free {
		return fmt.Errorf("defragment: %w: the copy needs about %d bytes, %d are free", ErrNoRoom, need, free)
	}
	err = s.be.Defrag()
	s.room.replaced.Store(true)
	if err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	return nil
}

// Hash is a checksum over the content of the file, all but what differs between
// members by nature; HashKV of etcd is KV().HashStorage().
func (s *Store) Hash() (uint32, error) {
	s.be.ForceCommit()
	h, err := s.be.Hash(schema.DefaultIgnores)
	if err != nil {
		return 0, fmt.Errorf("hash store: %w", err)
	}
	return h, nil
}

// status tells etcd's applier who it works for.
type status struct{ s *Store }

func (r status) MemberID() types.ID     { return types.ID(r.s.cfg.MemberID) }
func (r status) Leader() types.ID       { return types.ID(r.s.cfg.MemberID) }
func (r status) CommittedIndex() uint64 { return r.s.Applied().Index }
func (r status) AppliedIndex() uint64   { return r.s.Applied().Index }
func (r status) Term() uint64           { return r.s.Applied().Epoch }
