package hosts

import (
	"encoding/json"
	"time"
)

// The paths of the messages. A path below Public needs a token; every other one needs a
// certificate of the cluster's authority, or the Unix socket of the engine.
const (
	Public      = "/dynast/v1/public/"
	PathJoin    = Public + "join"
	PathStatus  = "/dynast/v1/status"
	PathMembers = "/dynast/v1/members"
	PathAdmit   = "/dynast/v1/admit"
	PathRemoved = "/dynast/v1/removed"
	PathList    = "/dynast/v1/hosts"
	PathRemove  = "/dynast/v1/remove"
	PathPromote = "/dynast/v1/promote"
	PathUpgrade = "/dynast/v1/upgrade"
	PathStop    = "/dynast/v1/stop"
	PathToken   = "/dynast/v1/token"
	PathTokens  = "/dynast/v1/tokens"
	PathRevoke  = "/dynast/v1/revoke"

	// These are carried out by the leader of a host, and not by its engine.
	PathInit    = "/dynast/v1/init"
	PathLeave   = "/dynast/v1/leave"
	PathRecover = "/dynast/v1/recover"
	// PathMetrics asks for the metrics of the leader of a host, as a text in Prometheus' format.
	PathMetrics = "/dynast/v1/metrics"
)

// WithTrees asks for a PathList or a PathStatus with the trees of the processes.
func WithTrees(path string) string { return path + "?tree=1" }

// Refusal is the body of an answer with an error status.
type Refusal struct {
	Error string `json:"error"`
}

// AdmitTimeout bounds the admission of a host. etcd adds no member before all hosts have been connected for
// five seconds, and after several faults that can take a while.
const AdmitTimeout = 30 * time.Second

// AdmitRequest asks the leading host to admit a host whose token another host has checked.
type AdmitRequest struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

// JoinRequest asks for admission. It is sent after the authority was compared with the token.
type JoinRequest struct {
	Token string `json:"token"`
	AdmitRequest
}

// AdmitResponse has the addresses of all hosts, by name, with the one that was admitted.
type AdmitResponse struct {
	Members map[string]string `json:"members"`
	// NotLeading is true if the host that was asked does not lead any more. It has admitted nobody.
	NotLeading bool `json:"not_leading,omitempty"`
}

// RemovedResponse says whether the host with an ID (NameRequest) was removed from the cluster.
type RemovedResponse struct {
	Removed bool `json:"removed"`
}

// JoinResponse admits a host. It has everything that an engine needs to start.
type JoinResponse struct {
	Cluster string            `json:"cluster"`
	Members map[string]string `json:"members"`
	// Certificate and Key are those of the authority, in PEM. Every host has them, because every
	// host can admit another one.
	Certificate []byte `json:"certificate"`
	Key         []byte `json:"key"`
}

// MembersResponse has the addresses of all hosts, by name.
type MembersResponse struct {
	Members map[string]string `json:"members"`
}

// The roles of a host's engine.
const (
	RoleLeader   = "leader"
	RoleFollower = "follower"
	RoleLearner  = "learner"   // it does not vote yet
	RoleJoining  = "joining"   // it was admitted, and has not been heard of
	RoleNoLeader = "no leader" // it votes, and knows of no leader
)

// Status is what a host says of itself.
type Status struct {
	Name     string `json:"name"`
	Address  string `json:"address"`
	ID       string `json:"id"`
	Cluster  string `json:"cluster"`
	Role     string `json:"role"`
	LeaderID string `json:"leader_id,omitempty"`
	Version  string `json:"version"`
	PID      int    `json:"pid"`
	// Started is when the engine started.
	Started time.Time `json:"started"`
	// LeaderSeen is when the engine last knew a leader of the hosts, or zero if it has not since its
	// start. LogWritten is when its log was last written.
	LeaderSeen time.Time `json:"leader_seen,omitzero"`
	LogWritten time.Time `json:"log_written,omitzero"`
	// Client is the address at which this host serves clients.
	Client    string   `json:"client"`
	Revision  int64    `json:"revision"`
	Term      uint64   `json:"term"`
	Committed uint64   `json:"committed"`
	Applied   uint64   `json:"applied"`
	DBBytes   int64    `json:"db_bytes"`
	UsedBytes int64    `json:"used_bytes"`
	Alarms    []string `json:"alarms,omitempty"`
	// QuotaBytes is the number of bytes in use at which writes are refused; negative: no limit.
	QuotaBytes    int64  `json:"quota_bytes"`
	DiskFreeBytes uint64 `json:"disk_free_bytes"`
	Keys          int64  `json:"keys"` // without deleted keys
	Connections   int    `json:"connections"`
	Watchers      int    `json:"watchers"`
	// Tree is the tree of the host's processes (package tree), or empty.
	Tree json.RawMessage `json:"tree,omitempty"`
}

// Host is one line of a List.
type Host struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	ID      string `json:"id"`
	Role    string `json:"role"`
	// Reachable is false if the host did not answer the one that made the list.
	Reachable bool `json:"reachable"`
	// LastContact is when the host was last heard of. It is zero if that was never.
	LastContact time.Time `json:"last_contact"`
	// Lag is how many entries of the log the host has not applied yet. It is -1 if that is not
	// known.
	Lag int64 `json:"lag"`
	// IfLost says what would happen if the host died now.
	IfLost string `json:"if_lost"`
	// Error says why the host did not answer.
	Error string `json:"error,omitempty"`
	// Foreign is true if it has the authority of another cluster now.
	Foreign bool    `json:"foreign,omitempty"`
	Status  *Status `json:"status,omitempty"`
}

// Votes reports whether a host counts for the majority.
func (h Host) Votes() bool { return h.Role != RoleLearner && h.Role != RoleJoining }

// List describes all hosts, as one of them sees them.
type List struct {
	Schema  int       `json:"schema"` // ListSchema
	At      time.Time `json:"at"`
	Cluster string    `json:"cluster"`
	// Self is the name of the host that made the list.
	Self string `json:"self"`
	// Quorum is how many voting hosts are needed, and Voting how many answer.
	Quorum int `json:"quorum"`
	Voting int `json:"voting"`
	// Writable is true if this host knows a leader.
	Writable bool `json:"writable"`
	// Verdict says in one sentence or two how the cluster is.
	Verdict string `json:"verdict"`
	Hosts   []Host `json:"hosts"`
}

// ListSchema is the version of List.
const ListSchema = 1

// NameRequest names a host.
type NameRequest struct {
	Name string `json:"name"`
	// Force removes a host even if the rest then has no majority that answers.
	Force bool `json:"force,omitempty"`
}

// UpgradeRequest replaces all processes of a host by those of another build.
type UpgradeRequest struct {
	Name string `json:"name"`
	// Binary is an absolute path on that host. Empty means the file that its leader was started from.
	Binary string `json:"binary,omitempty"`
}

// UpgradeResponse says which versions there were.
type UpgradeResponse struct {
	Before string `json:"before"`
	After  string `json:"after"`
}

// InitRequest makes a single host the first of several.
type InitRequest struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

// InitResponse says what the switch has moved.
type InitResponse struct {
	Name     string `json:"name"`
	Address  string `json:"address"`
	Revision int64  `json:"revision"`
	Bytes    int64  `json:"bytes"`
	// Paused is how long writes had to wait.
	Paused time.Duration `json:"paused"`
}

// TokenRequest asks for a new token.
type TokenRequest struct {
	Life time.Duration `json:"life"`
	Once bool          `json:"once"`
}

// TokenResponse has the new token.
type TokenResponse struct {
	Token   string    `json:"token"`
	Address string    `json:"address"`
	Expires time.Time `json:"expires"`
}

// LeaveRequest takes this host out of the cluster. With Last it goes back to a single host's store;
// otherwise the other hosts go on without it.
type LeaveRequest struct {
	Last bool `json:"last,omitempty"`
	// Wait only asks whether an earlier request is done.
	Wait bool `json:"wait,omitempty"`
}

// LeaveResponse says what became of this host.
type LeaveResponse struct {
	Name    string `json:"name"`
	Address string `json:"address,omitempty"`
	// Done is false while the leader is being replaced on the way to a single host's store. The
	// same request then has to be sent again.
	Done     bool  `json:"done"`
	Revision int64 `json:"revision,omitempty"`
	Bytes    int64 `json:"bytes,omitempty"`
	// Paused is how long writes had to wait.
	Paused time.Duration `json:"paused,omitempty"`
}

// RecoverRequest forms a new cluster of this host alone, after the loss of a majority.
type RecoverRequest struct {
	// DryRun only describes what would happen.
	DryRun bool `json:"dry_run,omitempty"`
	// Force also discards a longer copy of another host.
	Force bool `json:"force,omitempty"`
}

// Recovery describes the copy of a host from which a new cluster is formed.
type Recovery struct {
	Schema  int    `json:"schema"` // RecoverySchema
	Name    string `json:"name"`
	Address string `json:"address"`
	// Cluster is the one that has lost its majority, and NewCluster the one that was formed. It is
	// empty if nothing was done.
	Cluster    string `json:"cluster"`
	NewCluster string `json:"new_cluster,omitempty"`
	// Revision, Committed and Applied are where the copy ends: the revision of the keys, and the
	// last entries of the log that are known to be committed and that are applied.
	Revision  int64  `json:"revision"`
	Committed uint64 `json:"committed"`
	Applied   uint64 `json:"applied"`
	Term      uint64 `json:"term"`
	// LeaderSeen is when a leader was last known; zero if never since Started, when the engine
	// started. LogWritten is when the log was last written.
	LeaderSeen time.Time `json:"leader_seen,omitzero"`
	Started    time.Time `json:"started"`
	LogWritten time.Time `json:"log_written,omitzero"`
	// Missing says in words what may be lost.
	Missing string   `json:"missing"`
	Alarms  []string `json:"alarms,omitempty"`
	// Refused says why the recovery is refused. It is empty if it is possible.
	Refused string `json:"refused,omitempty"`
	// Needed is how many voting hosts the old cluster needs, and Answer how many answer.
	Needed int    `json:"needed"`
	Answer int    `json:"answer"`
	Hosts  []Host `json:"hosts"`
}

// RecoverySchema is the version of Recovery.
const RecoverySchema = 1
