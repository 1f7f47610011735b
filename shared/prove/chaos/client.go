package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Client sends random operations on a few keys through a stock client.
type Client struct {
	History *History
	ID      int
	Stock   *clientv3.Client
	Rand    *rand.Rand
	// Keys are the keys that it uses. All clients of a history use the same keys.
	Keys []string
	// ValueBytes is the length to which values are padded; 0 means no padding.
	ValueBytes int
	// Pause is the mean time between two operations; 0 means no pause.
	Pause time.Duration
	// Attempt bounds an operation; 0 means 10 s.
	Attempt time.Duration

	next int
	seen map[string]string // the last value of each key that this client saw
}

// attempt bounds an operation. It is longer than the leader's own timeout for writes.
const attempt = 10 * time.Second

// Run sends one operation after the other until ctx ends. The operation that is in progress then
// has an unknown outcome.
func (c *Client) Run(ctx context.Context) {
	c.seen = map[string]string{}
	for ctx.Err() == nil {
		r := c.request()
		if a, err := c.Do(ctx, r); err == nil {
			c.seen[r.Key] = a.Was
			if r.To != "" && (r.Kind == Put || a.Was == r.From) {
				c.seen[r.Key] = r.To
			}
		}
		if c.Pause > 0 {
			pause(ctx, time.Duration(c.Rand.Int64N(2*int64(c.Pause))))
		}
	}
}

// pause waits for d. It returns false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *Client) request() Request {
	r := Request{Kind: Get, Key: c.Keys[c.Rand.IntN(len(c.Keys))]}
	c.next++
	switch fresh := fmt.Sprintf("%d.%d", c.ID, c.next); c.Rand.IntN(10) {
	case 0, 1, 2:
		r.Kind, r.To = Put, fresh
	case 3, 4, 5:
		r.Kind, r.From, r.To = Exchange, c.seen[r.Key], fresh
	case 6:
		r.Kind = Delete
	}
	return r
}

// Do executes one operation and records it.
func (c *Client) Do(ctx context.Context, r Request) (Answer, error) {
	call := c.History.Now()
	try, done := context.WithTimeout(ctx, cmp.Or(c.Attempt, attempt))
	a, err := c.do(try, r)
	done()
	if err != nil && ctx.Err() == nil {
		c.History.note(r, time.Duration(c.History.Now()-call), err)
	}
	switch {
	case err != nil && r.Kind == Get:
		c.History.addFailed(r.Kind)
		return a, err
	case refused(err):
		c.History.addRefused(r.Kind)
		return a, err
	}
	a.Unknown = err != nil
	c.History.Add(porcupine.Operation{ClientId: c.ID, Input: r, Call: call, Output: a, Return: c.History.Now()})
	return a, err
}

// refused reports whether the error guarantees that the request had no effect.
func refused(err error) bool {
	return errors.Is(err, rpctypes.ErrNoSpace) || errors.Is(err, rpctypes.ErrTooManyRequests)
}

func (c *Client) do(ctx context.Context, r Request) (Answer, error) {
	switch r.Kind {
	case Put:
		resp, err := c.Stock.Put(ctx, r.Key, c.long(r.To), clientv3.WithPrevKV())
		if err != nil {
			return Answer{}, err
		}
		a := Answer{Revision: resp.Header.Revision}
		if resp.PrevKv != nil {
			a.Was = c.short(resp.PrevKv.Value)
		}
		return a, nil
	case Delete:
		resp, err := c.Stock.Delete(ctx, r.Key, clientv3.WithPrevKV())
		if err != nil || resp.Deleted == 0 {
			return Answer{}, err
		}
		return Answer{Was: c.short(resp.PrevKvs[0].Value), Revision: resp.Header.Revision}, nil
	case Exchange:
		is := clientv3.Compare(clientv3.Value(r.Key), "=", c.long(r.From))
		if r.From == "" {
			is = clientv3.Compare(clientv3.CreateRevision(r.Key), "=", 0)
		}
		resp, err := c.Stock.Txn(ctx).If(is).Then(clientv3.OpPut(r.Key, c.long(r.To))).Else(clientv3.OpGet(r.Key)).Commit()
		if err != nil {
			return Answer{}, err
		}
		if resp.Succeeded {
			return Answer{Was: r.From, Revision: resp.Header.Revision}, nil
		}
		return c.valueOf((*clientv3.GetResponse)(resp.Responses[0].GetResponseRange())), nil
	default:
		resp, err := c.Stock.Get(ctx, r.Key)
		if err != nil {
			return Answer{}, err
		}
		return c.valueOf(resp), nil
	}
}

func (c *Client) valueOf(resp *clientv3.GetResponse) Answer {
	if len(resp.Kvs) == 0 {
		return Answer{}
	}
	return Answer{Was: c.short(resp.Kvs[0].Value)}
}

// long pads a value, and short removes the padding. If the padding is not exactly what long
// writes, short returns the value unchanged; the checks then see a value that no client wrote.
func (c *Client) long(v string) string {
	if len(v) >= c.ValueBytes {
		return v
	}
	return v + " " + strings.Repeat("x", c.ValueBytes-len(v)-1)
}

func (c *Client) short(v []byte) string { return short(string(v), c.ValueBytes) }

func short(v string, valueBytes int) string {
	s, filling, _ := strings.Cut(v, " ")
	if len(v) != max(valueBytes, len(s)) || strings.Trim(filling, "x") != "" {
		return v
	}
	return strings.Clone(s) // do not keep the padded value in memory
}
