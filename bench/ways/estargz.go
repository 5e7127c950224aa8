// Serves the eStargz snapshotter of Debian's library package to containerd, for bench/ways/estargz.py.
//
// Debian ships the library and the converter, not the daemon. Whoever fetches in the background after
// the start would be measured by its luck, so that is off; everything else is as it is by default.
package main

import (
	"context"
	"flag"
	"log"
	"net"

	snapshots "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/contrib/snapshotservice"
	"github.com/containerd/stargz-snapshotter/service"
	"github.com/containerd/stargz-snapshotter/service/resolver"
	"google.golang.org/grpc"
)

func main() {
	socket := flag.String("socket", "", "Unix socket to listen on")
	root := flag.String("root", "", "directory of snapshots and of the cache")
	registry := flag.String("registry", "", "HOST:PORT of a registry that speaks no TLS")
	flag.Parse()

	config := service.Config{}
	config.NoBackgroundFetch = true
	config.NoPrometheus = true
	config.Host = map[string]resolver.HostConfig{
		*registry: {Mirrors: []resolver.MirrorConfig{{Host: *registry, Insecure: true}}},
	}
	snapshotter, err := service.NewStargzSnapshotterService(context.Background(), *root, &config)
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("unix", *socket)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	snapshots.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(snapshotter))
	log.Fatal(server.Serve(listener))
}
