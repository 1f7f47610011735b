package services

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/dynast-io/dynast/shared/config"
	rules "github.com/dynast-io/dynast/shared/rules/services"
	"github.com/dynast-io/dynast/supervisor/process"
)

// tokenVariable marks the processes of an instance, in their environment.
const tokenVariable = process.TokenVariable

func newToken() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// rollTimeout is how long a rolling restart waits until an instance is ready.
const rollTimeout = 5 * time.Minute

// toSpec returns what the rules need to know of a service.
func toSpec(s config.Service) rules.Spec {
	spec := rules.Spec{
		Name: s.Name, Instances: s.Instances, Needs: s.Needs, After: s.After,
		ReadyCheck: s.Ready != nil, StopTimeout: s.Stop.Timeout, HungTimeout: s.Stop.Hung,
		BackoffFirst: s.Backoff.First, BackoffMax: s.Backoff.Max, Limit: s.Backoff.Limit,
		Scheduled: s.Schedule != "", Fingerprint: fingerprint(s), RollTimeout: rollTimeout,
	}
	switch s.Restart {
	case config.RestartOnFailure:
		spec.Restart = rules.OnFailure
	case config.RestartNever:
		spec.Restart = rules.Never
	}
	if a := s.Alive; a != nil && a.Kind == config.CheckNotify {
		spec.Watchdog = a.Interval
	} else if a != nil {
		spec.AliveFailures = a.Threshold
	}
	return spec
}

// fingerprint is a checksum of what a running process cannot change. It is computed from the
// stored service by whichever build leads, so it is the same before and after an upgrade.
func fingerprint(s config.Service) uint64 {
	fixed := struct {
		Command          []string
		Script           string
		Dir, User, Group string
		Umask            int
		Env              map[string]string
		EnvFile          string
		Listen           []config.Listen
		Limits           config.Limits
		Security         config.Security
		Watchdog         string
	}{s.Command, s.Script, s.Dir, s.User, s.Group, s.Umask, s.Env, s.EnvFile, s.Listen, s.Limits, s.Security, watchdog(s)}
	b, err := json.Marshal(fixed)
	if err != nil {
		panic(fmt.Sprintf("services: cannot marshal a service: %v", err)) // it has only strings and numbers
	}
	h := fnv.New64a()
	_, _ = h.Write(b)
	return h.Sum64()
}

// watchdog returns the value of WATCHDOG_USEC, or "".
func watchdog(s config.Service) string {
	if s.Alive == nil || s.Alive.Kind != config.CheckNotify {
		return ""
	}
	return fmt.Sprint(s.Alive.Interval.Microseconds())
}
