package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// etcdMember runs one member of etcd until it gets a signal. Only names, addresses, the log level and
// timing differ from etcd's defaults. peers is "name=peerURL,...". timing has the heartbeat and the
// election timeout, or is empty.
func etcdMember(name, dir, clientURL, peers string, timing []string) error {
	cfg := embed.NewConfig()
	for i, ms := range []*uint{&cfg.TickMs, &cfg.ElectionMs}[:len(timing)] {
		d, err := time.ParseDuration(timing[i])
		if err != nil {
			return err
		}
		*ms = uint(d.Milliseconds())
	}
	cfg.Name, cfg.Dir, cfg.LogLevel = name, filepath.Join(dir, name), "error"
	peerURL, err := ownPeerURL(name, peers)
	if err != nil {
		return err
	}
	cfg.PeerAutoTLS = peerURL.Scheme == "https"
	client, err := url.Parse(clientURL)
	if err != nil {
		return err
	}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*peerURL}, []url.URL{*peerURL}
	cfg.InitialCluster = peers
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("etcd %s: %w", name, err)
	}
	defer e.Close()
	select {
	case err := <-e.Err():
		return fmt.Errorf("etcd %s: %w", name, err)
	case <-ctx.Done():
		return nil
	}
}

func ownPeerURL(name, peers string) (*url.URL, error) {
	for _, p := range strings.Split(peers, ",") {
		if n, u, ok := strings.Cut(p, "="); ok && n == name {
			return url.Parse(u)
		}
	}
	return nil, fmt.Errorf("member %s is not in the list of peers %s", name, peers)
}

// startEtcd starts a cluster with this number of members and waits until it answers.
func startEtcd(ctx context.Context, r *runner, members int) (*running, error) {
	name := fmt.Sprintf("etcd-%d", members)
	dir, err := r.directory(name)
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(2 * members)
	if err != nil {
		return nil, err
	}
	peers := make([]string, members)
	for i := range peers {
		peers[i] = fmt.Sprintf("m%d=http://127.0.0.1:%d", i, ports[2*i])
	}
	run := &running{name: name}
	for i := range members {
		endpoint := fmt.Sprintf("127.0.0.1:%d", ports[2*i+1])
		cmd, err := r.start(name, r.self, "etcd", fmt.Sprintf("m%d", i), dir, "http://"+endpoint, strings.Join(peers, ","))
		if err != nil {
			return nil, err
		}
		run.endpoints = append(run.endpoints, endpoint)
		run.pids = append(run.pids, cmd.Process.Pid)
	}
	return run, r.serves(ctx, run, 30*time.Second)
}
