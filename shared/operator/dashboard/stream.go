package dashboard

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/dynast-io/dynast/shared/observe/events"
)

const (
	// retry is how long a page waits before it reconnects after its stream has ended. The
	// connection is not refused: it waits in the listening socket for the next leader.
	retry = 100 * time.Millisecond
	// firstEvents is the maximum number of past events that a page gets.
	firstEvents = 500
	// writeTimeout bounds the time for one message, for a page that does not read.
	writeTimeout = 10 * time.Second
)

// stream sends the state and the new events at once, and then at every interval.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	if s.streams.Add(1) > maxStreams {
		s.streams.Add(-1)
		http.Error(w, fmt.Sprintf("too many open pages: at most %d are served: close one and try again", maxStreams), http.StatusServiceUnavailable)
		return
	}
	defer s.streams.Add(-1)
	w.Header().Set("Content-Type", "text/event-stream")
	out := &sender{w: w, c: http.NewResponseController(w)}
	// The read timeout of ordinary requests does not apply to a stream.
	_ = out.c.SetReadDeadline(time.Time{})
	hello, err := json.Marshal(map[string]any{"actions": s.cfg.TokenFile != "", "interval_ms": s.cfg.Interval.Milliseconds(),
		"heartbeat_ms": s.cfg.Heartbeat.Milliseconds()})
	if err != nil {
		return
	}
	out.printf("retry: %d\n", retry.Milliseconds())
	out.send("hello", hello)
	reader := events.NewReader(s.cfg.DataDir)
	defer reader.Close()
	tick := time.NewTicker(s.cfg.Interval)
	defer tick.Stop()
	sampled := time.Time{}
	for first := true; out.err == nil; first = false {
		happened, err := reader.Next()
		if err != nil {
			s.cfg.Logger.Warn("the dashboard cannot read the events", "error", err)
		}
		if first {
			happened = happened[max(0, len(happened)-firstEvents):]
		}
		if len(happened) > 0 {
			out.sendJSON(map[bool]string{true: "past", false: "events"}[first], withLevels(happened))
		}
		if samples := s.history.since(sampled); len(samples) > 0 {
			sampled = samples[len(samples)-1].At
			out.sendJSON("samples", samples)
		}
		if raw, err := s.cfg.Cluster.Tree(); err == nil {
			out.send("tree", raw)
		}
		out.flush() // the tree does not wait for the rest
		s.sendSlowly(r.Context(), out, "services", s.cfg.Cluster.Services)
		s.sendSlowly(r.Context(), out, "hosts", s.cfg.Cluster.Hosts)
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		case <-s.ended.Done():
			return
		}
	}
}

// levelledEvent is an event with what the page needs to colour it.
type levelledEvent struct {
	events.Event
	Level    events.Level `json:"level"`
	Recovery bool         `json:"recovery,omitempty"`
}

func withLevels(happened []events.Event) []levelledEvent {
	out := make([]levelledEvent, len(happened))
	for i, e := range happened {
		out[i] = levelledEvent{Event: e, Level: events.LevelOf(e.Kind), Recovery: events.Recovery(e.Kind)}
	}
	return out
}

// sendSlowly sends what read returns, unless that takes longer than the interval or there is nothing.
func (s *Server) sendSlowly(ctx context.Context, out *sender, what string, read func(context.Context) ([]byte, error)) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Interval)
	defer cancel()
	raw, err := read(ctx)
	if err != nil {
		s.cfg.Logger.Debug("the dashboard cannot read the "+what, "error", err)
	}
	if err != nil || raw == nil {
		return
	}
	out.send(what, raw)
	out.flush()
}

// sender writes server-sent events. After the first error it writes nothing more.
type sender struct {
	w   io.Writer
	c   *http.ResponseController
	err error
}

func (s *sender) printf(format string, args ...any) {
	if s.err == nil {
		_, s.err = fmt.Fprintf(s.w, format, args...)
	}
}

func (s *sender) sendJSON(kind string, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		s.err = err
		return
	}
	s.send(kind, raw)
}

// send sends a JSON text as one event. It removes line breaks, because each line would need a mark.
func (s *sender) send(kind string, raw []byte) {
	var one bytes.Buffer
	if err := json.Compact(&one, raw); err != nil {
		s.err = err
		return
	}
	s.printf("event: %s\ndata: %s\n\n", kind, &one)
}

func (s *sender) flush() {
	if s.err != nil {
		return
	}
	_ = s.c.SetWriteDeadline(time.Now().Add(writeTimeout))
	s.err = s.c.Flush()
}
