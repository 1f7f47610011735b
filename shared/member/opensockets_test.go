package member

import (
	"net"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/config"
)

// service returns a service with one socket.
func service(address string) []config.Service {
	s := config.NewService()
	s.Name, s.Listen = "web", []config.Listen{{Name: "http", Address: address}}
	return []config.Service{s}
}

// TestOpenWaits: a process that was just killed still has the address for a moment.
func TestOpenWaits(t *testing.T) {
	before, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	services, sockets := service(before.Addr().String()), NewSockets(nil)
	if errs := sockets.Open(services, t.TempDir(), 0); len(errs) != 1 {
		t.Fatalf("without patience: %v", errs)
	}
	opened := make(chan []error, 1)
	go func() { opened <- sockets.Open(services, t.TempDir(), time.Minute) }()
	select {
	case errs := <-opened:
		t.Fatalf("it did not wait: %v", errs)
	case <-time.After(50 * time.Millisecond): // it waits; nothing shows that it has begun
	}
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	if errs := <-opened; len(errs) != 0 {
		t.Fatal(errs)
	}
	f := sockets.File(ServiceListener("web", "http"))
	if f == nil {
		t.Fatal("the socket is not open")
	}
	defer f.Close()
	c, err := net.Dial("tcp", before.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
