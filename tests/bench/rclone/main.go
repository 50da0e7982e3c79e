// Rclone with what the benchmark takes of it: streams to and from an S3 bucket.
package main

import (
	_ "github.com/rclone/rclone/backend/s3"
	"github.com/rclone/rclone/cmd"
	_ "github.com/rclone/rclone/cmd/cat"
	_ "github.com/rclone/rclone/cmd/rcat"
)

func main() {
	cmd.Main()
}
