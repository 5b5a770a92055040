"""Wrong unit files, commands, settings and requests, each with what must be said of it; `test_bad_input` tries them."""

from __future__ import annotations

RUN = "[Service]\nExecStart=/bin/true\n"
OVERSIZED = 600_000

UNIT_FILES: dict[str, tuple[str | bytes, str]] = {
    "line": ("[Service]\nExecStart=/bin/true\n rubbish\n", ":3:2: 'rubbish' is neither a section, a setting"),
    "header": ("[Service\n", ":1:1: '[Service' is not a section header"),
    "outside": ("ExecStart=/bin/true\n", ":1:1: The service has no ExecStart=.*ExecStart= stands before any section"),
    "section": ("[Servic]\nExecStart=/bin/true\n", ":2:1: .*The section [Servic] is unknown"),
    "key": ("[Service]\nExecStrat=/bin/true\n", ":2:1: .*ExecStrat= in [Service] is unknown"),
    "empty": ("", "The service has no ExecStart=, so there is nothing to run"),
    "quote": ('[Service]\nExecStart=/bin/echo "a\n', ':2:21: ExecStart=: The quote " is never closed'),
    "specifier": ("[Service]\nExecStart=/bin/echo %Q\n", ":2:21: ExecStart=: '%Q' is not a specifier"),
    "docker": ("[Service]\nExecStart=/usr/bin/docker run --bogus b\n", ":2:11: docker run: unknown flag: --bogus"),
    "docker-size": (
        "[Service]\nExecStart=/usr/bin/docker run -m lots b\n",
        ":2:11: docker run: -m: 'lots' is not a size",
    ),
    "span": (RUN + "TimeoutStopSec=abc\n", ":3:16: TimeoutStopSec=: 'abc' is not a span of time"),
    "type": (RUN + "Type=odd\n", ":3:6: Type=: 'odd' is not one of simple"),
    "restart": (RUN + "Restart=maybe\n", ":3:9: Restart=: 'maybe' is not one of no"),
    "oneshot": (RUN + "Type=oneshot\nRestart=always\n", ":4:9: Type=oneshot does not go with Restart=always"),
    "size": (RUN + "MemoryLimit=lots\n", ":3:13: MemoryLimit=: 'lots' is not a size"),
    "environment": (RUN + "Environment=9x\n", ":3:13: Environment=: '9x' is not NAME=value"),
    "global": (RUN + "[X-Fleet]\nGlobal=perhaps\n", ":4:8: Global=: 'perhaps' is neither yes nor no"),
    "metadata": (RUN + "[X-Fleet]\nMachineMetadata=disk\n", ":4:17: MachineMetadata=: 'disk' is not key=value"),
    "both": (RUN + "[X-Fleet]\nGlobal=true\nMachineID=abc\n", ":5:11: Global=true does not go with MachineID="),
    "binary": (b"\xff\xfe\x00", "not a text file in UTF-8 (byte 0)"),
    "nul": ("[Service]\nExecStart=/bin/a\0b\n", ":2:1: A NUL character"),
    "large": (RUN + "#" + "x" * OVERSIZED + "\n", "The file is larger than 524288 bytes"),
}
"""Name -> file, and what must be said of it: words in this order."""

IN_CLUSTER = """
1 | fleetctl start nowhere.service | nowhere.service is neither a unit of the cluster nor a file here
1 | fleetctl start nowhere@1 | nor its template nowhere@.service
1 | fleetctl start /root | /root is a directory
1 | fleetctl start '' | '' names no unit
1 | fleetctl start bad!name | 'bad!name.service' is not a unit name
1 | fleetctl start @.service | '@.service' is not a unit name
1 | fleetctl cat '' | '' names no unit
1 | fleetctl journal good/ | 'good/' names no unit
1 | fleetctl cat a\udcff | is not text in UTF-8
1 | fleetctl submit /proc/1/mem | /proc/1/mem:
1 | fleetctl stop nowhere | No such unit in the cluster: nowhere.service
1 | fleetctl unload nowhere | No such unit in the cluster: nowhere.service
1 | fleetctl destroy nowhere | No such unit in the cluster: nowhere.service
1 | fleetctl destroy 'no*' | No unit of the cluster matches 'no*'
1 | fleetctl cat nowhere | Unit nowhere.service not found
4 | fleetctl status nowhere | Unit nowhere.service not found
1 | fleetctl journal nowhere | nowhere.service does not exist
1 | fleetctl list-units --fields nope | There is no field 'nope'; use some of unit,machine
2 | fleetctl list-units --bogus | No such option: --bogus
2 | fleetctl start | Missing argument 'UNIT...'
2 | fleetctl start --block-attempts x good | Invalid value for '--block-attempts'
2 | fleetctl nothing | No such command 'nothing'
1 | fleetctl --endpoint ftp://x list-units | neither unix:///PATH nor http://HOST:PORT
1 | fleetctl --endpoint http://h:abc cat good | neither unix:///PATH nor http://HOST:PORT
1 | fleetctl --endpoint unix:///no list-units | does not answer on unix:///no: No such file or directory. Is it running
1 | fleetctl --endpoint http://127.0.0.1:2379 list-units | http://127.0.0.1:2379 answered with HTTP status 404
1 | kvctl put '' x | key is not provided
128 | kvctl put | put command needs 1 argument and input from stdin or 2 arguments
1 | kvctl get x --rev 99999 | required revision is a future revision
1 | kvctl get x --rev x | invalid argument "x" for "--rev" flag
1 | kvctl get x --limit 9223372036854775808 | value out of range
128 | kvctl lease grant x | bad TTL (strconv.ParseInt
128 | kvctl --endpoints 127.0.0.1:99999 get x | a port is 1 to 65535
4 | kvctl get x --order nope | bad sort order nope
4 | kvctl -w xml get x | unsupported output format
1 | kvctl --command-timeout x get x | 'x' is not a duration
128 | kvctl --endpoints nohost get x | "nohost" is not an endpoint
1 | kvctl --endpoints 127.0.0.1:1 get x | 127.0.0.1:1: Connection refused
1 | kvctl put x y --lease=99 | requested lease not found
128 | kvctl lease revoke zz | bad lease ID arg (strconv.ParseInt
1 | kvctl member remove 77 | member not found
1 | kvctl member add x --peer-urls zz | URL scheme must be http, https, unix, or unixs: zz
1 | kvctl compaction x | strconv.ParseInt: parsing "x": invalid syntax
1 | kvctl nothing | unknown command "nothing" for "kvctl"
1 | kvctl get x --bogus | unknown flag: --bogus
125 | dock run | docker run needs an image
1 | dock create | docker create needs an image
125 | dock run nope | nope is not on this machine, and nothing is pulled
125 | dock run --bogus x | unknown flag: --bogus
125 | dock run -p x y | -p: 'x' is not a port
1 | dock logs nope | No such container: nope
1 | dock logs nope\udcff | No such container: nope
1 | dock rm nope | No such container: nope
1 | dock import /nope x | /nope: No such file or directory
1 | dock import /etc/passwd x | The archive can't be read: invalid header
1 | dock load -i /etc/passwd | The archive can't be read: invalid header
2 | dock nothing | No such command 'nothing'
"""
"""Exit code | command | what it must say."""

PROGRAMS = """
2 | fleetd --voters 4 | --voters: a store has 3, 5 or 7 voters
2 | fleetd --voters x | --voters: Input should be a valid integer
2 | fleetd --bootstrap-expect 0 | --bootstrap-expect: Input should be greater than or equal to 1
2 | fleetd --listen-address 10.0.0.1 | is beyond loopback, which wants TLS
2 | fleetd --listen-address nohost | --listen-address: 'nohost' does not appear to be an IPv4 or IPv6
2 | fleetd --listen-address 0.0.0.0 | name one address of this machine
2 | fleetd --cluster-name 'a b' | --cluster-name: use 1 to 63 letters
2 | fleetd --metadata nothing | --metadata: metadata 'nothing' is not key=value
2 | fleetd --peers 10.0.0.1:99999 | --peers: '10.0.0.1:99999' is not HOST or HOST:PORT
2 | fleetd --kv-endpoints https://h:1 | --kv-endpoints: 'https://h:1' is not HOST or HOST:PORT
2 | fleetd --store-election-ms 5 | --store-election-ms: Input should be greater than or equal to 100
2 | fleetd --bogus | unrecognized arguments: --bogus; see fleetd --help
2 | fleetd nothing | invalid choice: 'nothing'
2 | fleetd --config /nope.toml | /nope.toml: No such file or directory
2 | fleetd --config {dir}/syntax.toml | syntax.toml: .*at line 2, column 3
2 | fleetd --config {dir}/unknown.toml | unknown.toml: unknown setting 'voterz'; 'fleetd --help' lists them
2 | fleetd --config {dir}/value.toml | value.toml: voters: a store has 3, 5 or 7 voters
2 | fleetd --config {dir}/type.toml | type.toml: mdns: Input should be a valid boolean
2 | fleetd --config {dir}/binary.toml | binary.toml: not a text file in UTF-8 (byte 10)
2 | fleetd --config {dir} | Is a directory
2 | fleetd --data-dir '' | --data-dir: a path is not empty
1 | fleetd --data-dir /proc/x | can't use --data-dir /proc/x: No such file or directory
2 | kvstore --bogus | flag provided but not defined: -bogus; see kvstore --help
2 | kvstore --name | flag needs an argument: -name
2 | kvstore --election-timeout x | --election-timeout: 'x' is not a whole number
2 | kvstore --election-timeout 9223372036854775808 | '9223372036854775808' is larger than
2 | kvstore --listen-client-urls nohost | URL scheme must be http, https
2 | kvstore --listen-client-urls http://1.2.3.4:2379 | reachable from other machines without TLS; pass --insecure
2 | kvstore --initial-cluster foo | 'foo' is not of the form name=url
2 | kvstore --initial-cluster-state maybe | --initial-cluster-state is 'new' or 'existing', not 'maybe'
2 | kvstore --cert-file x | KeyFile and CertFile must both be present
2 | kvstore --listen-client-urls https://127.0.0.1:2379 | must be provided for client url https://127.0.0.1:2379
2 | kvstore --auto-tls --listen-client-urls https://1.2.3.4:2379 | lets in whoever reaches it
2 | kvstore --client-cert-auth | --client-cert-auth needs --trusted-ca-file
2 | kvstore --tls-min-version 1.2 | unexpected TLS version "1.2"
1 | kvstore --data-dir /proc/x | /proc/x: No such file or directory
2 | kvstore gateway start --endpoints x | 'x' is not an endpoint: write HOST:PORT
2 | kvstore gateway start --endpoints , | --endpoints names no member
2 | kvstore gateway start --bogus | unrecognized arguments: --bogus
1 | kvstore gateway start --listen-addr 192.0.2.1:2379 | 192.0.2.1:2379: Cannot assign requested address
1 | fleet-lab up -n 0 | a lab has 1 to 99 machines, not 0
2 | fleet-lab up -n x | Invalid value for '-n'
1 | fleet-lab up --name Bad_Name | a lab's name has up to 20 small letters
1 | fleet-lab up --name ../up | a lab's name has up to 20 small letters
1 | fleet-lab up -n 1 --name badhold --hold m7 | --hold m7: this lab has m1 to m1
1 | fleet-lab up -n 1 --name noplace --dir /etc/passwd | m1 has no place for its data: /etc/passwd
1 | fleet-lab status --name nolab | there is no lab 'nolab'; `fleet-lab up` makes one
1 | fleet-lab --name nolab status | there is no lab 'nolab'; `fleet-lab up` makes one
1 | fleet-lab kill --name {lab} m9 | lab {lab} has no machine 'm9', only m1
1 | fleet-lab exec --name {lab} m1 | name a command: fleet-lab exec m1 -- CMD
1 | fleet-lab start --name {lab} m1 | m1 is on already
1 | fleet-lab start --name {lab} m2 --address 10.0.0.1 | 10.0.0.1 is none for a machine
1 | fleet-lab start --name {lab} web | machines are called m1 to m99, not 'web'
1 | fleet-lab partition --name {lab} m9 | lab {lab} has no machine 'm9'
2 | fleet-lab nothing | No such command 'nothing'
"""

CONFIGS = {
    "binary.toml": "voters = 3\udcff\n",
    "syntax.toml": "voters = 3\nx y\n",
    "unknown.toml": "voterz = 3\n",
    "value.toml": "voters = 4\n",
    "type.toml": 'mdns = "perhaps"\n',
}

OPTIONS = '"options":[{"section":"Service","name":"ExecStart","value":"/bin/true"}]'
REQUESTS: list[tuple[int, str, str, str, str]] = [
    (400, "PUT", "/fleet/v1/units/x.service", "{", "Invalid JSON"),
    (400, "PUT", "/fleet/v1/units/x.service", "[]", "Input should be an object"),
    (400, "PUT", "/fleet/v1/units/x.service", "{}", "desiredState: Field required"),
    (400, "PUT", "/fleet/v1/units/x.service", '{"desiredState":"flying"}', "desiredState: Input should be 'inactive'"),
    (
        409,
        "PUT",
        "/fleet/v1/units/x.service",
        '{"desiredState":"loaded"}',
        "does not exist, and options field is empty",
    ),
    (400, "PUT", "/fleet/v1/units/bad!", f'{{"desiredState":"loaded",{OPTIONS}}}', "'bad!' is not a unit name"),
    (400, "PUT", "/fleet/v1/units/x%2Fy.service", f'{{"desiredState":"loaded",{OPTIONS}}}', "is not a unit name"),
    (400, "PUT", "/fleet/v1/units/x.timer", f'{{"desiredState":"loaded",{OPTIONS}}}', "type .timer can't be run"),
    (
        400,
        "PUT",
        "/fleet/v1/units/x.service",
        '{"desiredState":"loaded","options":[{"name":"a"}]}',
        "options.0.section",
    ),
    (400, "PUT", "/fleet/v1/units/x.service", f'{{"name":"y","desiredState":"loaded",{OPTIONS}}}', "differs from unit"),
    (400, "POST", "/fleetd/v1/units", '{"units":[{"desiredState":"loaded"}]}', "each needs a name"),
    (
        409,
        "POST",
        "/fleetd/v1/units",
        '{"units":[{"name":"a.service","desiredState":"loaded"}]}',
        "no such unit: a.serv",
    ),
    (404, "GET", "/fleet/v1/units/none", "", "unit none does not exist"),
    (404, "DELETE", "/fleet/v1/units/none", "", "unit none does not exist"),
    (404, "GET", "/fleet/v1/nowhere", "", "GET /fleet/v1/nowhere: Not Found"),
    (405, "POST", "/fleet/v1/units", "{}", "POST /fleet/v1/units: Method Not Allowed"),
    (405, "DELETE", "/fleet/v1/machines", "", "DELETE /fleet/v1/machines: Method Not Allowed"),
    (400, "GET", "/fleet/v1/units?nextPageToken=%21", "", "invalid value of nextPageToken"),
    (404, "GET", "/fleetd/v1/journal/none", "", "does not exist"),
]
"""Status, method, path, body, what the error entity must say."""
