package proc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// MaxFiles is the largest number of files in one message.
const MaxFiles = 64

// SendFiles sends a payload and copies of open files over a Unix stream socket. The sender's
// files stay open, and the sender still has to close them. Calls on one connection must not
// overlap.
func SendFiles(conn *net.UnixConn, payload []byte, files ...*os.File) error {
	if len(files) > MaxFiles {
		return fmt.Errorf("send files: %d files do not fit into one message, the limit is %d", len(files), MaxFiles)
	}
	// The length comes first, because a stream has no message boundaries. The files arrive with
	// the first byte.
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(payload)))
	frame = append(frame, payload...)
	return withFDs(files, nil, func(fds []int) error {
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		n, _, err := conn.WriteMsgUnix(frame, rights, nil)
		if err != nil {
			return fmt.Errorf("send files: %w", err)
		}
		if n == len(frame) {
			// Do not even make an empty write here. The receiver may have read everything,
			// answered and closed, and then even an empty write fails with a broken pipe.
			return nil
		}
		if _, err := conn.Write(frame[n:]); err != nil {
			return fmt.Errorf("send files: %w", err)
		}
		return nil
	})
}

// withFDs calls f with the descriptors of files, which stay open meanwhile. os.File.Fd would
// not do, because it can set the open file to blocking mode, for everybody who shares it.
func withFDs(files []*os.File, fds []int, f func([]int) error) error {
	if len(files) == 0 {
		return f(fds)
	}
	raw, err := files[0].SyscallConn()
	if err != nil {
		return fmt.Errorf("descriptor of %s: %w", files[0].Name(), err)
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = withFDs(files[1:], append(fds, int(fd)), f) })
	return errors.Join(err, inner)
}

// ReceiveFiles receives what one call of SendFiles sent. The files are close-on-exec, and the
// caller has to close them. A payload longer than maxPayloadBytes is an error, and no memory is
// allocated for it. After an error the connection cannot be used any more, and no file is left
// open.
func ReceiveFiles(conn *net.UnixConn, maxPayloadBytes int) (payload []byte, files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
			payload, files = nil, nil
		}
	}()
	var header [4]byte
	oob := make([]byte, unix.CmsgSpace(MaxFiles*4))
	// Go sets MSG_CMSG_CLOEXEC, so no child process can inherit the files by accident.
	n, oobn, flags, _, err := conn.ReadMsgUnix(header[:], oob)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return nil, nil, fmt.Errorf("receive files: %w", err)
	}
	if files, err = parseFiles(oob[:oobn]); err != nil {
		return nil, files, fmt.Errorf("receive files: %w", err)
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return nil, files, fmt.Errorf("receive files: more than %d files were sent, or this process has reached its limit of open files", MaxFiles)
	}
	if err = readRest(conn, header[n:]); err != nil {
		return nil, files, fmt.Errorf("receive files: length: %w", err)
	}
	length := binary.BigEndian.Uint32(header[:])
	if uint64(length) > uint64(max(maxPayloadBytes, 0)) {
		return nil, files, fmt.Errorf("receive files: the payload has %d bytes, at most %d are allowed", length, maxPayloadBytes)
	}
	payload = make([]byte, length)
	if err = readRest(conn, payload); err != nil {
		return nil, files, fmt.Errorf("receive files: payload: %w", err)
	}
	return payload, files, nil
}

// readRest reads the rest of a message. The message has begun, so an end of file is unexpected.
func readRest(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// parseFiles returns every file that arrived, even if it also returns an error.
func parseFiles(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	var files []*os.File
	for i := range messages {
		fds, e := unix.ParseUnixRights(&messages[i])
		err = errors.Join(err, e)
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), fmt.Sprintf("received-%d", fd)))
		}
	}
	return files, err
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// PeerUID returns the process and the user that connected the other end of a Unix socket. The
// pid may belong to another process by now. The uid is certain.
func PeerUID(conn *net.UnixConn) (pid, uid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0, fmt.Errorf("peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) {
		cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, inner); err != nil {
		return 0, 0, fmt.Errorf("peer credentials: %w", err)
	}
	return int(cred.Pid), int(cred.Uid), nil
}
