package meter

import (
	"sync/atomic"
	"time"
)

// Class sorts the requests of clients.
type Class uint8

// The classes.
const (
	Read  Class = iota // KV.Range
	Write              // KV.Put, KV.DeleteRange, KV.Txn
	Other              // all others that have one answer
	classes
)

func (c Class) String() string { return [...]string{"read", "write", "other"}[c] }

// Classes are all of them.
func Classes() []Class { return []Class{Read, Write, Other} }

// ClassOf sorts a gRPC method, like /etcdserverpb.KV/Put.
func ClassOf(method string) Class {
	switch method {
	case "/etcdserverpb.KV/Range":
		return Read
	case "/etcdserverpb.KV/Put", "/etcdserverpb.KV/DeleteRange", "/etcdserverpb.KV/Txn":
		return Write
	}
	return Other
}

// Requests meters the requests of clients. The zero value is ready; safe for
// concurrent use.
type Requests struct {
	class [classes]struct {
		Histogram
		failed atomic.Uint64
	}
	streams atomic.Int64
}

// Done counts a request that is answered.
func (r *Requests) Done(c Class, took time.Duration, failed bool) {
	r.class[c].Observe(took)
	if failed {
		r.class[c].failed.Add(1)
	}
}

// Stream counts an open stream (a watch, a lease's keep-alives) until the
// function that it returns is called.
func (r *Requests) Stream() (done func()) {
	r.streams.Add(1)
	return func() { r.streams.Add(-1) }
}

// Load is what clients ask for, at one moment: counted since the start of the
// process, each class by itself.
type Load struct {
	Read    ClassLoad `json:"read"`
	Write   ClassLoad `json:"write"`
	Other   ClassLoad `json:"other"`
	Streams int64     `json:"streams"` // open now
}

// ClassLoad is the part of a class.
type ClassLoad struct {
	Counts
	Failed uint64 `json:"failed"` // answered with an error; they are in Count, too
}

// Of is the part of a class.
func (l *Load) Of(c Class) *ClassLoad {
	return [...]*ClassLoad{&l.Read, &l.Write, &l.Other}[c]
}

// Sub returns what came after an earlier snapshot.
func (l Load) Sub(before Load) Load {
	out := Load{Streams: l.Streams}
	for _, c := range Classes() {
		*out.Of(c) = ClassLoad{Counts: l.Of(c).Counts.Sub(before.Of(c).Counts), Failed: l.Of(c).Failed - min(before.Of(c).Failed, l.Of(c).Failed)}
	}
	return out
}

// Count is the number of requests of all classes.
func (l *Load) Count() uint64 { return l.Read.Count + l.Write.Count + l.Other.Count }

// Snapshot reads the meter.
func (r *Requests) Snapshot() Load {
	l := Load{Streams: r.streams.Load()}
	for _, c := range Classes() {
		*l.Of(c) = ClassLoad{Counts: r.class[c].Snapshot(), Failed: r.class[c].failed.Load()}
	}
	return l
}
