// Package schemas holds the contract's documents: what clients of the edge see.
// The contract's code is in the packages below.
package schemas

import _ "embed"

// OpenAPI is the OpenAPI 3.1 document of the edge, in YAML.
//
//go:embed openapi.yaml
var OpenAPI []byte
