package engine

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/member/hosts"
)

// A stranger that does not send the body of its request loses its connection. One whose request takes
// longer than that is answered.
func TestAStrangerCannotKeepAConnection(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(verified(answer(func(r *http.Request, _ hosts.JoinRequest) (struct{}, error) {
		select {
		case <-r.Context().Done():
			return struct{}{}, errors.New("the request was ended")
		case <-time.After(headerTimeout + time.Second):
			return struct{}{}, nil
		}
	})))
	defer s.Close()
	for _, c := range []struct {
		body   string
		bytes  int
		status int
	}{{"{}", 2, http.StatusOK}, {"{", 100, http.StatusBadRequest}} {
		conn, err := tls.Dial("tcp", s.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(6 * headerTimeout)); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", hosts.PathJoin, c.bytes, c.body); err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(conn) // until the server closes the connection
		if err != nil {
			t.Fatalf("%q of %d bytes: %v", c.body, c.bytes, err)
		}
		status := 0
		if _, err := fmt.Sscanf(string(raw), "HTTP/1.1 %d", &status); err != nil || status != c.status {
			t.Errorf("%q of %d bytes: status %d (%v), want %d", c.body, c.bytes, status, err, c.status)
		}
	}
}
