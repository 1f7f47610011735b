package meter

import (
	"sync/atomic"
	"time"
)

// Class is a class of clients' requests.
type Class uint8

// The classes.
const (
	Read  Class = iota // KV.Range
	Write              // KV.Put, KV.DeleteRange, KV.Txn
	Other              // all others that have one answer
	classes
)

func (c Class) String() string { return [...]string{"read", "write", "other"}[c] }

// Classes returns all classes.
func Classes() []Class { return []Class{Read, Write, Other} }

// ClassOf returns the class of a gRPC method, like /etcdserverpb.KV/Put.
func ClassOf(method string) Class {
	switch method {
	case "/etcdserverpb.KV/Range":
		return Read
	case "/etcdserverpb.KV/Put", "/etcdserverpb.KV/DeleteRange", "/etcdserverpb.KV/Txn":
		return Write
	}
	return Other
}

// Requests counts and times clients' requests. The zero value is ready. It is safe for
// concurrent use.
type Requests struct {
	class [classes]struct {
		Histogram
		failed atomic.Uint64
	}
	streams atomic.Int64
}

// Done counts a request that was answered.
func (r *Requests) Done(c Class, took time.Duration, failed bool) {
	r.class[c].Observe(took)
	if failed {
		r.class[c].failed.Add(1)
	}
}

// Stream counts an open stream (a watch, a lease's keep-alives) until the returned function is
// called.
func (r *Requests) Stream() (done func()) {
	r.streams.Add(1)
	return func() { r.streams.Add(-1) }
}

// Load is the load by clients since the start of the process, by class.
type Load struct {
	Read    ClassLoad `json:"read"`
	Write   ClassLoad `json:"write"`
	Other   ClassLoad `json:"other"`
	Streams int64     `json:"streams"` // open now
}

// ClassLoad is the load of one class.
type ClassLoad struct {
	Counts
	Failed uint64 `json:"failed"` // answered with an error; included in Count
}

// Of returns the load of a class.
func (l *Load) Of(c Class) *ClassLoad {
	return [...]*ClassLoad{&l.Read, &l.Write, &l.Other}[c]
}

// Sub returns the load since an earlier snapshot.
func (l Load) Sub(before Load) Load {
	out := Load{Streams: l.Streams}
	for _, c := range Classes() {
		*out.Of(c) = ClassLoad{Counts: l.Of(c).Counts.Sub(before.Of(c).Counts), Failed: l.Of(c).Failed - min(before.Of(c).Failed, l.Of(c).Failed)}
	}
	return out
}

// Count is the number of requests of all classes.
func (l *Load) Count() uint64 { return l.Read.Count + l.Write.Count + l.Other.Count }

// Snapshot returns the current load.
func (r *Requests) Snapshot() Load {
	l := Load{Streams: r.streams.Load()}
	for _, c := range Classes() {
		*l.Of(c) = ClassLoad{Counts: r.class[c].Snapshot(), Failed: r.class[c].failed.Load()}
	}
	return l
}
