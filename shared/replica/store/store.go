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

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/rules/entry"
)

const (
	// DefaultCommitInterval is how long an applied entry may be missing in the database file,
	// unless there is a reason to commit earlier.
	DefaultCommitInterval = time.Second
	// commitEntries is the number of changes after which a commit does not wait for the
	// interval.
	commitEntries = 10000
	// commitBytes is the size of entries after which a commit does not wait for the interval.
	// Entries are in memory until the commit, some of them twice.
	commitBytes = 16 << 20
	// minLeaseTTLSeconds is the minimum time to live of a lease. It is that of an etcd with
	// default settings.
	minLeaseTTLSeconds = 2
	// leaseRetryInterval is the time after which an expired lease that still exists is reported
	// again.
	leaseRetryInterval = 3 * time.Second
	// DefaultTokenTTL is how long a simple token lives after its last use.
	DefaultTokenTTL = 5 * time.Minute
	simpleTokens    = "simple"
	bcryptCost      = 10
	// never is the interval at which etcd's backend commits by itself.
	never = 1000 * time.Hour
)

// Config says where a store is and how it behaves. Only Dir is required.
type Config struct {
	// Dir is the directory of the database file, Dir/db. It is created if it is missing.
	Dir string
	// QuotaBytes is the number of bytes in use at which writes are refused; see Fits. 0 is
	// etcd's default of 2 GiB, a negative number means no limit.
	QuotaBytes int64
	// CommitInterval is DefaultCommitInterval if it is 0.
	CommitInterval time.Duration
	Logger         *zap.Logger
	// OpenTimeout is how long Open waits for another process to release the file. 0 is as short
	// as possible.
	OpenTimeout time.Duration
	// ClusterID and MemberID appear in response headers.
	ClusterID, MemberID uint64
	// AuthToken is the kind of tokens that users get, in the format of etcd's flag
	// --auth-token: "simple", or "jwt,sign-method=...,priv-key=FILE,...". Empty means simple.
	AuthToken string
	// TokenTTL is DefaultTokenTTL if it is 0. JWTs have their own time to live (option ttl).
	TokenTTL time.Duration
	// Deadlines is where a leader records when leases end. nil means nowhere.
	Deadlines *Deadlines
	// BcryptCost is the cost of hashing a password; 0 means etcd's default.
	BcryptCost int
	// OnFatal is called when the database cannot be written any more, or when it is found to be
	// damaged (ErrCorrupt). It may be called on any goroutine. It should end the process; if it
	// returns, the process exits with code 1.
	OnFatal func(error)
}

// Path returns the path of the database file of a store in dir.
func Path(dir string) string { return filepath.Join(dir, "db") }

// Store is an open state machine.
type Store struct {
	cfg  Config
	lg   *zap.Logger
	hook *failureHook

	be     backend.Backend
	index  cindex.ConsistentIndexer
	kv     *watchable
	lessor *Lessor
	leases *leaseBackend
	auth   auth.AuthStore
	alarms *v3alarm.AlarmStore
	quota  storage.Quota // only to compute the cost of a request
	uber   apply.UberApplier

	// readers bounds how many goroutines read the history at a time.
	readers chan struct{}

	// leading is set between Promote and Demote, while clients wait for results.
	leading atomic.Bool

	// uncommittedBytes is an upper bound. Apply adds to it, and settle subtracts what is
	// committed.
	uncommittedBytes atomic.Int64
	// committingBytes is how much of uncommittedBytes the newest commit writes. The lock of the
	// batch transaction protects it.
	committingBytes int64
	room            room
	decoder         requestDecoder // only Apply uses it

	// counting is locked while an entry is counted without the lock of the batch transaction,
	// and while a commit writes the index and the rows of leases. It is the last lock that is
	// taken.
	counting sync.Mutex
	// dirty means that an entry changed something since the last commit.
	dirty                        atomic.Bool
	stopCommitter, committerDone chan struct{}

	mu      sync.Mutex
	applied entry.Position
	// broken is set once. Close sets it, or a panic of etcd's code, which may have left locks
	// behind that are never released.
	broken error
}

// Open opens the store in cfg.Dir, and creates it if it is missing.
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

// removeUnfinished removes the files that a Defrag leaves behind when its process is killed.
// Each can be as large as the database. No other process can be writing such a file, because
// this one has the database open.
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
	c.Hooks = commitHook{Hooks: storage.NewBackendHooks(s.lg, s.index), s: s}
	// For bbolt, 0 means to wait for ever.
	c.Timeout = max(s.cfg.OpenTimeout, time.Millisecond)
	s.be = backend.New(c)
	s.room.estimate(path)
	s.index.SetBackend(s.be)
	schema.CreateMetaBucket(s.be.BatchTx())
	return nil
}

// mmapBytes is the address space to reserve for the file. A file that outgrows its mapping has
// to be mapped again. That waits for every reader and holds up every new one; a snapshot on its
// way to a slow follower is such a reader. Address space costs nothing, so the reservation is
// large enough for a file at its quota. (Above 1 GiB bbolt rounds up to whole GiBs.)
func mmapBytes(quotaBytes int64) uint64 {
	switch {
	case quotaBytes == 0:
		quotaBytes = storage.DefaultQuotaBytes
	case quotaBytes < 0 || quotaBytes > math.MaxInt64/2:
		return backend.InitialMmapSize
	}
	return uint64(quotaBytes + quotaBytes/4 + 64<<20)
}

// assemble makes etcd's parts in the order in which they need each other. The lessor comes
// before the key-value store, which attaches keys to the leases that it finds. The hook that
// counts entries comes last, when everything that does not belong to an entry is written.
func (s *Store) assemble() error {
	s.applied.Index, s.applied.Epoch = schema.ReadConsistentIndex(s.be.ReadTx())
	s.leases = newLeaseBackend(s)
	etcds := lease.NewLessor(s.lg, s.leases, formatVersion{}, lease.LessorConfig{
		MinLeaseTTL:       minLeaseTTLSeconds,
		CheckpointPersist: true, // otherwise a power loss would start every lease anew
	})
	s.leases.keeps = true
	s.lessor = newLessor(etcds, s.applied.Index, s.checkpoints(), s.cfg.Deadlines)
	restoring := newRestoring(s.be, restoreRunBytes)
	defer restoring.close()
	s.kv = newWatchable(mvcc.NewStore(s.lg, restoring, s.lessor, mvcc.StoreConfig{}), s.lessor)
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
	// This comes after newApplier, so that the metrics show this quota.
	s.quota = storage.NewBackendQuota(s.lg, s.cfg.QuotaBytes, s.be, "dynast")
	s.be.SetTxPostLockInsideApplyHook(s.countEntry)
	return nil
}

// checkpoints returns the remaining times of leases that the database holds.
func (s *Store) checkpoints() map[lease.LeaseID]time.Duration {
	tx := s.be.ReadTx()
	tx.RLock()
	defer tx.RUnlock()
	rest := map[lease.LeaseID]time.Duration{}
	for _, l := range schema.MustUnsafeGetAllLeases(tx) {
		if l.RemainingTTL > 0 {
			rest[lease.LeaseID(l.ID)] = time.Duration(l.RemainingTTL) * time.Second
		}
	}
	return rest
}

// CheckAuthToken reports what is wrong with a kind of tokens, including its key files, before
// anything is opened.
func CheckAuthToken(kind string) error {
	if _, err := auth.NewTokenProvider(nil, kind, entryIsApplied, DefaultTokenTTL); err != nil {
		return fmt.Errorf("invalid auth token kind: %w", err)
	}
	return nil
}

// entryIsApplied tells a token provider when an entry is applied here. The entry of a token
// always is, because only the leader checks tokens, and it has applied everything that it ever
// answered.
func entryIsApplied(uint64) <-chan struct{} { return alwaysDone }

var alwaysDone = func() <-chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}()

// Close commits what is applied and closes the file. Snapshots must be closed before, because
// Close waits for them. A second call does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	broken := s.broken
	s.broken = errClosed
	s.mu.Unlock()
	if broken == nil || !errors.Is(broken, errClosed) {
		close(s.stopCommitter)
	}
	if broken != nil {
		return nil // its locks may never be released, and the file is consistent as it is
	}
	<-s.committerDone
	s.lessor.Stop()
	// A running compaction is interrupted. It continues after the next Open.
	err := errors.Join(s.kv.Close(), s.auth.Close(), s.be.Close())
	if err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// Applied is the last applied entry, whether it is on disk or not.
func (s *Store) Applied() entry.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applied
}

// Durable is the last entry whose effects are all safe on disk. This store does not need the
// log up to it any more. Durable may wait for a commit.
func (s *Store) Durable() entry.Position {
	var p entry.Position
	p.Index, p.Epoch = schema.ReadConsistentIndex(s.be.ReadTx())
	return p
}

// Commit makes everything applied durable. If it is durable already, Commit writes nothing.
func (s *Store) Commit() {
	if s.Durable() != s.Applied() {
		s.commit()
	}
}

func (s *Store) commit() {
	s.be.ForceCommit()
	s.settle()
}

// Promote makes this store the leader's. From now on leases expire here (see Lessor.Promote),
// and results are complete.
func (s *Store) Promote(grace time.Duration) {
	s.leading.Store(true)
	s.lessor.Promote(grace)
}

// Demote undoes Promote.
func (s *Store) Demote() {
	s.lessor.Demote()
	s.leading.Store(false)
}

// KV is the key-value store, for reading. See NewWatchStream for watching.
func (s *Store) KV() mvcc.KV { return s.kv }

// Lessor returns the lessor.
func (s *Store) Lessor() *Lessor { return s.lessor }

// Auth returns the store of users and roles.
func (s *Store) Auth() auth.AuthStore { return s.auth }

// Alarms returns the store of active alarms.
func (s *Store) Alarms() *v3alarm.AlarmStore { return s.alarms }

// Logger returns the store's logger, for etcd's functions that need one.
func (s *Store) Logger() *zap.Logger { return s.lg }

// ClusterID is the cluster's id in response headers.
func (s *Store) ClusterID() uint64 { return s.cfg.ClusterID }

// MemberID is the member's id in response headers.
func (s *Store) MemberID() uint64 { return s.cfg.MemberID }

// Revision is the store's current revision.
func (s *Store) Revision() int64 { return s.kv.Rev() }

// Size is the size of the database file in bytes.
func (s *Store) Size() int64 { return s.be.Size() }

// SizeInUse is the number of bytes of Size that are not in free pages.
func (s *Store) SizeInUse() int64 { return s.be.SizeInUse() }

// Version is the version of the database format.
func (s *Store) Version() string { return formatVersion{}.Version().String() }

// Defrag rewrites the database file without its free pages. Everything else waits meanwhile.
// The copy needs disk space. If Defrag filled the disk, it would be full for every member, so
// Defrag checks first and fails with ErrNoRoom.
func (s *Store) Defrag() error {
	free, err := proc.FreeBytes(s.cfg.Dir)
	if err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	if need := s.be.SizeInUse(); uint64(need)+uint64(need)/8 > free {
		return fmt.Errorf("defragment: %w: the copy needs about %d bytes, but only %d are free", ErrNoRoom, need, free)
	}
	err = s.be.Defrag()
	s.room.replaced.Store(true)
	if err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	return nil
}

// Hash is a checksum of the content of the file, without what differs between members by
// nature. For etcd's HashKV see KV().HashStorage().
func (s *Store) Hash() (uint32, error) {
	s.be.ForceCommit()
	h, err := s.be.Hash(schema.DefaultIgnores)
	if err != nil {
		return 0, fmt.Errorf("hash store: %w", err)
	}
	return h, nil
}

// status tells etcd's applier about its member.
type status struct{ s *Store }

func (r status) MemberID() types.ID     { return types.ID(r.s.cfg.MemberID) }
func (r status) Leader() types.ID       { return types.ID(r.s.cfg.MemberID) }
func (r status) CommittedIndex() uint64 { return r.s.Applied().Index }
func (r status) AppliedIndex() uint64   { return r.s.Applied().Index }
func (r status) Term() uint64           { return r.s.Applied().Epoch }
