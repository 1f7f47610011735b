package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// firstListenFD is the number of the first socket that is passed on. See sd_listen_fds(3).
const firstListenFD = 3

// shutdownTimeout is how long requests may take after the stop signal. It is shorter than
// stop.timeout in config.hcl.
const shutdownTimeout = 5 * time.Second

func main() {
	if err := serve(); err != nil {
		log.Fatal(err)
	}
}

// serve answers requests until the stop signal.
func serve() error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	listener, err := inheritedListener()
	if err != nil {
		return err
	}
	// Clients see which process answers.
	answer := fmt.Sprintf("instance %s, pid %d\n", os.Getenv("INSTANCE"), os.Getpid())
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log.Printf("%s %s", r.Method, r.URL.Path)
		fmt.Fprint(w, answer)
	})}
	var open sync.WaitGroup // connections
	server.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed, http.StateHijacked:
			open.Done()
		}
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	if err := notify("READY=1\nSTATUS=serving"); err != nil {
		return err
	}
	log.Printf("ready: instance %s", os.Getenv("INSTANCE"))
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	log.Print("stopping")
	err = errors.Join(notify("STOPPING=1"), listener.Close())
	<-served
	// No new connection comes here any more: it waits in the socket for another instance. Those that
	// came get their answers. Server.Shutdown would close a connection whose request it has not read.
	server.SetKeepAlivesEnabled(false)
	answered := make(chan struct{})
	go func() { open.Wait(); close(answered) }()
	select {
	case <-answered:
	case <-time.After(shutdownTimeout):
	}
	return errors.Join(err, server.Close())
}

// inheritedListener returns the first socket that dynast passed on.
func inheritedListener() (net.Listener, error) {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 1 || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, errors.New("no socket was passed on: run this program as a service with a listen block")
	}
	f := os.NewFile(firstListenFD, "http")
	defer f.Close()
	return net.FileListener(f)
}

// notify tells dynast about the state of this program. Without a supervisor it does nothing.
func notify(state string) error {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	return nil
}
