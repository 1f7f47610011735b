package hosts

import "time"

// The paths with which the leader of a host asks its engine for the ownership of a service. Only the Unix
// socket of the engine answers them.
const (
	PathHold    = "/dynast/v1/hold"
	PathRenew   = "/dynast/v1/renew"
	PathRelease = "/dynast/v1/release"
)

// OwnerPrefix begins the keys of the store that hold the ownership of a service. The name of the service
// follows.
const OwnerPrefix = "dynast/services/"

// Owner is the value of such a key.
type Owner struct {
	// Host is the name of the host, for people, and Member its number in the cluster, which no other host
	// ever has.
	Host   string `json:"host"`
	Member string `json:"member"`
}

// HoldRequest asks for the ownership of a service.
type HoldRequest struct {
	Service string `json:"service"`
	// TTL is the life of the lease, in whole seconds.
	TTL time.Duration `json:"ttl"`
}

// HoldResponse has the new ownership, or says who has it.
type HoldResponse struct {
	// Lease is the lease of the key, and Fence the key's create revision. They are 0 if somebody has the
	// ownership already.
	Lease int64 `json:"lease"`
	Fence int64 `json:"fence"`
	// Owner is the name of the host that has it, and Mine is the lease if that is this host.
	Owner string `json:"owner"`
	Mine  int64  `json:"mine,omitempty"`
}

// RenewRequest renews an ownership.
type RenewRequest struct {
	Service string `json:"service"`
	Lease   int64  `json:"lease"`
	Fence   int64  `json:"fence"`
}

// RenewResponse says whether the host still has it.
type RenewResponse struct {
	Renewed bool `json:"renewed"`
}

// ReleaseRequest gives an ownership back.
type ReleaseRequest struct {
	Lease int64 `json:"lease"`
}
