package web

import (
	"bytes"
	"io"
	"net"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

const (
	// maxRefusing bounds how many refused connections are told the reason at a time. Further
	// ones are closed without an answer.
	maxRefusing   = 32
	refuseTimeout = time.Second
)

// Refusing is how many connections can exist in addition to those that are served.
const Refusing = maxRefusing + 1

// refusal is the text for a client that is refused.
const refusal = "dynast: too many connections (client.max_connections)"

// refuse tells a client in its own protocol why it is not served. Over TLS it just closes the
// connection, because a handshake would add to the load.
func (s *Split) refuse(c net.Conn) {
	select {
	case s.refusing <- struct{}{}:
	default:
		_ = c.Close()
		return
	}
	go func() {
		defer func() { _ = c.Close(); <-s.refusing }()
		_ = c.SetDeadline(time.Now().Add(refuseTimeout))
		if s.tls == nil {
			answerFull(c)
		}
	}()
}

func answerFull(c net.Conn) {
	is2, err := beginsWith(c, preface)
	switch {
	case err != nil:
		return
	case is2:
		if err := answerFirstRequest(c); err != nil {
			return
		}
	default:
		if _, err := io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nConnection: close\r\nRetry-After: 1\r\n\r\n"+refusal+"\n"); err != nil {
			return
		}
	}
	// Closing with unread bytes sends a reset, which can overtake the answer.
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(c, 64<<10))
}

// answerFirstRequest speaks just enough HTTP/2 to answer the first gRPC request with a status.
// A message in a GOAWAY would not reach the client's user. The status is Unavailable, after
// which clients try again, including watchers.
func answerFirstRequest(c net.Conn) error {
	if _, err := io.CopyN(io.Discard, c, int64(len(http2.ClientPreface))); err != nil {
		return err
	}
	f := http2.NewFramer(c, c)
	f.SetMaxReadFrameSize(maxHeaderBytes)
	if err := f.WriteSettings(); err != nil {
		return err
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return err
		}
		id := frame.Header().StreamID
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				if err := f.WriteSettingsAck(); err != nil {
					return err
				}
			}
		case *http2.HeadersFrame:
			err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: unavailable(), EndHeaders: true, EndStream: true})
			if err != nil {
				return err
			}
			return f.WriteGoAway(id, http2.ErrCodeEnhanceYourCalm, []byte(refusal))
		}
	}
}

// unavailable returns the headers of a gRPC answer without content.
func unavailable() []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, h := range []hpack.HeaderField{
		{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"},
		{Name: "grpc-status", Value: strconv.Itoa(int(codes.Unavailable))}, {Name: "grpc-message", Value: refusal},
	} {
		_ = e.WriteField(h) // writing to memory does not fail
	}
	return b.Bytes()
}
