package store

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/auth"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.uber.org/zap"
	"google.golang.org/grpc/metadata"
)

const (
	// touchFraction is the part of a token's life after which another use of it is recorded in
	// the database.
	touchFraction = 10
	// maxTouched bounds the number of uses in one entry.
	maxTouched = 1000
	// touchPrefix marks an entry that records uses. A token's own prefix cannot begin like
	// this: it is 16 letters and an underscore.
	touchPrefix = "touch_"
)

// tokenBucket holds a row for each simple token. etcd does not know this bucket, and leaves
// unknown buckets alone.
type tokenBucket struct{}

func (tokenBucket) ID() backend.BucketID    { return 1000 }
func (tokenBucket) Name() []byte            { return []byte("dynastTokens") }
func (tokenBucket) String() string          { return "dynastTokens" }
func (tokenBucket) IsSafeRangeBucket() bool { return false }

// tokenStore is etcd's auth store with simple tokens that outlive the process. etcd keeps
// them in memory only. A member that was started after a login does not know the token,
// and a member lets a token expire while it is used at another. Here each login is a row
// in the database, and so in every snapshot. Touch records uses through the log from time
// to time.
//
// A row names the token by its hash, so nobody can log in with the content of the database
// or of a backup. A row also holds a hash of the user's password. By it a token is known to
// be invalid after the user was deleted or got another password, without another write.
type tokenStore struct {
	auth.AuthStore
	be    backend.Backend
	users auth.AuthBackend
	ttl   time.Duration
	now   func() time.Time

	mu     sync.Mutex
	logins map[digest]*login
}

type digest [sha256.Size]byte

// login is one row, and what this process knows in addition.
type login struct {
	user     string
	password digest
	// written is the last use that the database knows, used is the last use that this process
	// knows, both in Unix milliseconds. Only a leader sets used; in a follower it is 0.
	written, used int64
	// checked is the revision of the users at which the password was last found unchanged.
	checked uint64
}

func (l *login) last() time.Time { return time.UnixMilli(max(l.written, l.used)) }

func newTokenStore(inner auth.AuthStore, lg *zap.Logger, be backend.Backend, ttl time.Duration) *tokenStore {
	t := &tokenStore{
		AuthStore: inner, be: be, users: schema.NewAuthBackend(lg, be), ttl: ttl, now: time.Now,
		logins: map[digest]*login{},
	}
	tx := be.BatchTx()
	tx.LockOutsideApply()
	defer tx.Unlock()
	tx.UnsafeCreateBucket(tokenBucket{})
	_ = tx.UnsafeForEach(tokenBucket{}, func(k, v []byte) error {
		if l := decodeLogin(v); l != nil && len(k) == sha256.Size {
			t.logins[digest(k)] = l
		}
		return nil
	})
	return t
}

// GenTokenPrefix adds the time to etcd's prefix, so that all members know the same time.
func (t *tokenStore) GenTokenPrefix() (string, error) {
	prefix, err := t.AuthStore.GenTokenPrefix()
	return prefix + "_" + formatTime(t.now().UnixMilli()), err
}

// Authenticate is called for an entry: for a login, or for an entry that Touch made.
func (t *tokenStore) Authenticate(ctx context.Context, user, password string) (*pb.AuthenticateResponse, error) {
	prefix, _ := ctx.Value(auth.AuthenticateParamSimpleTokenPrefix{}).(string)
	if touched, ok := strings.CutPrefix(prefix, touchPrefix); ok {
		t.touched(touched)
		return &pb.AuthenticateResponse{}, nil
	}
	resp, err := t.AuthStore.Authenticate(ctx, user, password)
	if err != nil {
		return nil, err
	}
	_, text, _ := strings.Cut(prefix, "_")
	l := &login{user: user, written: parseTime(text)}
	if u := t.users.GetUser(user); u != nil {
		l.password = sha256.Sum256(u.Password)
	}
	t.write(l.written, map[digest]*login{sha256.Sum256([]byte(resp.Token)): l})
	return resp, nil
}

// write stores rows. It also removes rows that expired long ago by the time in the entry, so
// that every member removes the same ones.
func (t *tokenStore) write(now int64, rows map[digest]*login) {
	var expired []digest
	t.mu.Lock()
	for d, l := range t.logins {
		if rows[d] == nil && l.written < now-2*t.ttl.Milliseconds() {
			expired = append(expired, d)
		}
	}
	t.mu.Unlock()
	tx := t.be.BatchTx()
	tx.LockInsideApply()
	for _, d := range expired {
		tx.UnsafeDelete(tokenBucket{}, d[:])
	}
	for d, l := range rows {
		tx.UnsafePut(tokenBucket{}, d[:], l.encode())
	}
	tx.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range expired {
		delete(t.logins, d)
	}
	for d, l := range rows {
		if old := t.logins[d]; old != nil {
			l.used, l.checked = old.used, old.checked
		}
		t.logins[d] = l
	}
}

// AuthDisable switches authentication off and logs everybody out.
func (t *tokenStore) AuthDisable() {
	t.AuthStore.AuthDisable()
	t.mu.Lock()
	gone := t.logins
	t.logins = map[digest]*login{}
	t.mu.Unlock()
	tx := t.be.BatchTx()
	tx.LockInsideApply()
	defer tx.Unlock()
	for d := range gone {
		tx.UnsafeDelete(tokenBucket{}, d[:])
	}
}

// AuthInfoFromCtx identifies the caller by a token. A token that is not known here may be one
// of etcd's own (WithRoot).
func (t *tokenStore) AuthInfoFromCtx(ctx context.Context) (*auth.AuthInfo, error) {
	if t.IsAuthEnabled() {
		for _, field := range []string{rpctypes.TokenFieldNameGRPC, rpctypes.TokenFieldNameSwagger} {
			if token := metadata.ValueFromIncomingContext(ctx, field); len(token) > 0 {
				if caller := t.caller(token[0]); caller != nil {
					return caller, nil
				}
				break
			}
		}
	}
	return t.AuthStore.AuthInfoFromCtx(ctx)
}

func (t *tokenStore) caller(token string) *auth.AuthInfo {
	// The revision is read before the check. A change after the check makes the request fail,
	// or the next request sees it.
	revision := t.Revision()
	d := digest(sha256.Sum256([]byte(token)))
	now := t.now()
	t.mu.Lock()
	l := t.logins[d]
	if l == nil || now.Sub(l.last()) > t.ttl {
		t.mu.Unlock()
		return nil
	}
	user, password, checked := l.user, l.password, l.checked == revision
	t.mu.Unlock()
	if !checked {
		if u := t.users.GetUser(user); u == nil || sha256.Sum256(u.Password) != password {
			return nil
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.logins[d]; l != nil { // write may have replaced it meanwhile
		l.used, l.checked = max(l.used, now.UnixMilli()), revision
	}
	return &auth.AuthInfo{Username: user, Revision: revision}
}

// touch lists the uses that should be recorded. The list is empty if there are none.
func (t *tokenStore) touch() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var uses []string
	for d, l := range t.logins {
		if l.used-l.written >= (t.ttl/touchFraction).Milliseconds() && len(uses) < maxTouched {
			uses = append(uses, base64.RawURLEncoding.EncodeToString(d[:])+"."+formatTime(l.used))
		}
	}
	if len(uses) == 0 {
		return ""
	}
	return touchPrefix + strings.Join(uses, ",")
}

func (t *tokenStore) touched(uses string) {
	rows := map[digest]*login{}
	latest := int64(0)
	for _, use := range strings.Split(uses, ",") {
		name, at, _ := strings.Cut(use, ".")
		raw, err := base64.RawURLEncoding.DecodeString(name)
		if err != nil || len(raw) != sha256.Size {
			continue
		}
		t.mu.Lock()
		if l := t.logins[digest(raw)]; l != nil {
			rows[digest(raw)] = &login{user: l.user, password: l.password, written: max(l.written, parseTime(at))}
		}
		t.mu.Unlock()
		latest = max(latest, parseTime(at))
	}
	t.write(latest, rows)
}

func formatTime(unixMillis int64) string { return strconv.FormatInt(unixMillis, 36) }

// parseTime returns a time long ago if s is malformed.
func parseTime(s string) int64 {
	ms, _ := strconv.ParseInt(s, 36, 64)
	return ms
}

const loginHeader = 8 + sha256.Size

func (l *login) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(l.written))
	b = append(b, l.password[:]...)
	return append(b, l.user...)
}

func decodeLogin(b []byte) *login {
	if len(b) < loginHeader {
		return nil
	}
	return &login{
		written: int64(binary.BigEndian.Uint64(b)), password: digest(b[8:loginHeader]), user: string(b[loginHeader:]),
	}
}

// TouchInterval is how often a leader should call Touch.
func (s *Store) TouchInterval() time.Duration { return s.cfg.TokenTTL / (2 * touchFraction) }

// Touch returns a request that tells every member which tokens were used lately, so that these
// do not expire under the next leader. It returns nil if there is nothing to tell.
func (s *Store) Touch() *pb.InternalRaftRequest {
	t, ok := s.auth.(*tokenStore)
	if !ok || !t.IsAuthEnabled() {
		return nil
	}
	uses := t.touch()
	if uses == "" {
		return nil
	}
	return &pb.InternalRaftRequest{Authenticate: &pb.InternalAuthenticateRequest{SimpleToken: uses}}
}
