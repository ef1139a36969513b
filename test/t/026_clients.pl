
# The programs of docs/clients.md do what the page says: each is taken from it and
# run, if its client is there, and what it did is looked up in the database.
# What the tables of the page say of the clients of Python and Node.js is asked
# of these, and so is what its remarks do (test/clients/probe.*).
#
# Clients that are not there are skipped, except those that are named in
# TASKSHED_CLIENTS.  Go and Prisma, which take long or much space, are run if
# CLIENTS is set.  Packages of npm are looked for in test/clients/node_modules,
# Prisma in test/clients/prisma/node_modules.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use File::Basename qw(basename dirname);
use File::Path     qw(make_path);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $clients = "$FindBin::RealBin/../clients";
my $dir     = "$PostgreSQL::Test::Utils::tmp_check/clients";
my $all     = $ENV{CLIENTS};
my %wanted  = map { $_ => 1 } split ' ', $ENV{TASKSHED_CLIENTS} || '';

# A Python of the distribution has its packages, whichever comes first.
my $python = -x '/usr/bin/python3' ? '/usr/bin/python3' : 'python3';
my $jdbc   = '/usr/share/java/postgresql.jar';
my $gopath = '/usr/share/gocode';

# Prisma needs a newer Node.js than Debian 12 has; it is among its packages.
my ($newer_node) =
  (glob("$clients/prisma/node_modules/node-linux-*/bin/node"), 'node');

# The blocks below each heading
my (%blocks, $heading);
my $page = slurp_file("$FindBin::RealBin/../../docs/clients.md");
while ($page =~ /^##? ([^\n]*)\n|^```(\w+)\n(.*?)^```$/msg)
{
	if (defined $1) { $heading = $1 }
	else { push @{ $blocks{$heading} }, { language => $2, text => $3 } }
}

sub in_dir
{
	return map { "$dir/$_" } @_;
}

# Of each program the file that it is put into, what it is run with, and a command
# that succeeds if the client is there.
my %programs = (
	psql => {
		file  => 'psql.sh',
		run   => [ 'sh',   in_dir('psql.sh') ],
		there => [ 'psql', '--version' ]
	},
	'psycopg 3' => python('psycopg'),
	'psycopg 2' => python('psycopg2'),
	SQLAlchemy  => python('sqlalchemy'),
	Django      => {
		run   => [ $python, "$clients/project.py", 'schedule', 'django' ],
		there => [ $python, '-c', 'import django' ],
		every => '30 days, 0:00:00'
	},
	'node-postgres' => node_js('pg'),
	'postgres.js'   => node_js('postgres'),
	drizzle         => node_js('drizzle-orm'),
	Prisma          => {
		file  => 'prisma/prisma.mjs',
		run   => [ $newer_node, in_dir('prisma/prisma.mjs') ],
		there => [ 'ls',        in_dir('prisma/node_modules/prisma') ],
		make  => [
			$newer_node, in_dir('prisma/node_modules/prisma/build/index.js'),
			'generate',  '--schema', "$clients/prisma/schema.prisma"
		],
		only_all => 1
	},
	JDBC => {
		file  => 'Schedule.java',
		run   => [ 'java', '-cp', $jdbc, in_dir('Schedule.java') ],
		there => [ 'sh',   '-c',  "javac -version && ls $jdbc" ]
	},
	pgx            => go('pgx'),
	'database/sql' => go('stdlib'));

# The tables of the page: the rows by what is in their first cells
sub table
{
	my ($title) = @_;
	my ($lines) =
	  $page =~ /^## \Q$title\E\n.*?^\|[-|]+\|\n((?:\|[^\n]*\|\n)+)/ms;
	my %rows;

	foreach (split /\n/, $lines)
	{
		my (undef, $first, @cells) = split / *\| */;

		$rows{$_} = \@cells foreach split /, /, $first =~ tr/`//dr;
	}
	return \%rows;
}

# What a cell of "Reading rows" means, in the words of a probe
my @read    = qw(every run_count until kwargs);
my %reading = (
	every => {
		'`timedelta`'             => qr/^timedelta 30 days, 0:00:00$/,
		'object, `{ months: 1 }`' => qr/"months":1\b/,
		q{`'1 mon'`}              => qr/^"1 mon"$/,
		error                     => qr/^error UnsupportedNativeDataType$/
	},
	run_count => {
		'`int`'    => qr/^int 0$/,
		string     => qr/^"0"$/,
		'`BigInt`' => qr/^bigint 0$/
	},
	until => {
		'`DataError`'    => qr/^DataError: timestamp too large/,
		'end of 9999'    => qr/^9999-12-31 23:59:59/,
		'as its driver'  => qr/^(DataError|9999-12-31)/,
		'`Infinity`'     => qr/^number Infinity$/,
		'`Invalid Date`' => qr/^Date invalid$/,
		q{`'infinity'`; all times are strings} => qr/^"infinity"$/
	},
	kwargs => {
		'`dict`' => qr/^dict \{'customer_id': 1\}$/,
		'`dict` in a model, `str` from a cursor' =>
		  qr/^str \{"customer_id": 1\}$/,
		object => qr/^\{"customer_id":1\}$/
	});

# Those of which there are no probes, as somebody has seen them
my %seen = (
	'Reading rows' => {
		JDBC => '`PGInterval` `Long` `OffsetDateTime.MAX` `getString`: text',
		pgx  =>
		  '`time.Duration`, `pgtype.Interval` `int64` error in `time.Time` map',
		'database/sql' => '`string` `int64` error in `time.Time` `[]byte`'
	},
	Errors => {
		JDBC =>
		  '`getSQLState()` `((PSQLException) error).getServerErrorMessage().getHint()`',
		Go => '`Code` of a `*pgconn.PgError` (`errors.As`) `Hint`'
	});

my @python = (
	seconds      => qr/^float 2592000\.0$/,
	dict         => qr/^ProgrammingError: can.*t adapt type 'dict'/,
	number       => qr/^\w+: function .* does not exist/,
	twice        => qr/^\w+: kwargs must be a JSON object/,
	'empty list' => qr/^0$/,
	tuple        => qr/^\w+: (malformed array|function .* does not exist)/,
	None         => qr/^\w+: either task_ids or group_id must be given/,
	'fetch None' => qr/^True$/);
my @node_js = (
	seconds      => qr/^number 2592000$/,
	'empty list' => qr/^number 0$/,
	null         => qr/^error (either task_ids|postgres)/);
my @pg_date = (run_at => qr/^Date 2100-01-01T00:00:00\.000Z$/);
my @as_text = (text   => qr/^"probe"$/, 'tasks as text' => qr/^\["probe"\]$/);
my @drizzles = (
	run_at       => qr/^"2100-01-01 00:00:00\+00"$/,
	undefined    => qr/^error syntax error/,
	'plain list' => qr/^error function .* does not exist/,
	@as_text);
my %probes = (
	'psycopg 3' => {
		client => 'psycopg',
		says   => [
			@python, pairs => qr/^1$/
		]
	},
	'psycopg 2' => {
		client => 'psycopg2',
		says   => [
			@python,
			pairs         => qr/^\w+: function .* does not exist/,
			'pairs, cast' => qr/^1$/
		]
	},
	SQLAlchemy => {
		client => 'sqlalchemy',
		says   => [
			'keyword lost'  => qr/^True$/,
			'double colon'  => qr/syntax error at or near ":"/,
			'empty list'    => qr/^0$/,
			'empty array()' => qr/cannot determine type of empty array/
		]
	},
	Django => {
		client => 'django',
		says   => [@python]
	},
	'node-postgres' => {
		client => 'pg',
		says   => [
			@node_js, @pg_date, @as_text,
			object     => qr/^"probe"$/,
			tasks      => qr/^error invalid input syntax for type json/,
			'no tasks' => qr/^error tasks must be a JSON array/
		]
	},
	'postgres.js' => {
		client => 'postgres',
		says   => [
			@node_js, @pg_date,
			text            => qr/^error kwargs must be a JSON object/,
			'tasks as text' => qr/^error tasks must be a JSON array/,
			undefined       => qr/^error UNDEFINED_VALUE/
		]
	},
	drizzle => {
		client => 'drizzle',
		says   => [ @node_js, @drizzles, Date => qr/^true$/ ]
	},
	'drizzle with postgres.js' => {
		client => 'drizzle-postgres',
		says   => [
			@node_js, @drizzles,
			Date   => qr/^error The "string" argument/,
			object => qr/^error The "string" argument/
		]
	},
	Prisma => {
		client => 'prisma',
		says   => [
			@node_js, @pg_date, @as_text,
			void   => qr/^error UnsupportedNativeDataType$/,
			object => qr/^"probe"$/,
			tasks  => qr/^error /
		]
	});

sub python
{
	my ($module) = @_;

	return {
		file  => "with_$module.py",
		run   => [ $python, in_dir("with_$module.py") ],
		there => [ $python, '-c', "import $module" ]
	};
}

sub node_js
{
	my ($package) = @_;
	my $file = ($package =~ s/\W/_/gr) . '.mjs';

	return {
		file  => $file,
		run   => [ 'node', in_dir($file) ],
		there =>
		  [ 'node', '-e', "require.resolve('$package', {paths: ['$dir']})" ]
	};
}

# A module of Go is built with what Debian has packages of, so without modules.
sub go
{
	my ($package) = @_;

	return {
		file  => "$package/main.go",
		run   => [ in_dir("$package/main") ],
		there => [
			'sh', '-c',
			"go version && ls -d $gopath/src/github.com/jackc/pgx"
		],
		make => [
			'go', 'build', '-o', in_dir("$package/main", "$package/main.go")
		],
		only_all => 1
	};
}

# Runs a command in $dir; returns whether it succeeded, and what it printed.
sub run_there
{
	my ($command) = @_;
	my ($out, $err) = ('', '');
	my $ok = eval {
		IPC::Run::run($command, '<', \'', '>', \$out, '2>', \$err,
			init => sub { chdir $dir or die "chdir: $!" });
	};

	$err .= $@ unless defined $ok;
	return ($ok, $out, $err);
}

sub put
{
	my ($file, $text) = @_;

	make_path(dirname("$dir/$file"));
	open(my $fh, '>', "$dir/$file") or die "could not write $file: $!";
	print $fh $text;
	close($fh) or die "could not write $file: $!";
	return;
}

# Why a client is not there, if it is not
sub missing
{
	my ($client) = @_;

	return 'make test CLIENTS=1 runs it'
	  if $programs{$client}->{only_all} && !$all;
	my ($ok, $out, $err) = run_there($programs{$client}->{there});
	return if $ok;
	my ($why) =
	  $err =~ /^(.*(?:Error|not found|No such file|file not found).*)$/m;
	return
	  'the client is not installed (' . ($why || 'it is not there') . ')';
}

my $node = taskshed_node('clients', conf => "listen_addresses = '127.0.0.1'");
my $many = delete $blocks{'Many at once'};
my @sql  = grep { $_->{language} eq 'sql' }
  map { @{ $blocks{$_} } } grep { !$programs{$_} } keys %blocks;
is(scalar @sql, 1, 'the page has one block for all');
is( join(', ', sort grep { $programs{$_} } keys %blocks),
	join(', ', sort keys %programs),
	'the page has a program for each client');
$node->safe_psql('postgres',
	"CREATE ROLE app LOGIN; SET ROLE app; $sql[0]->{text}");

# What makes the commit fail of a transaction that inserts and schedules; each for
# itself would succeed.
my $refuse = q{
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF EXISTS (SELECT FROM taskshed.tasks WHERE task_id = 'invoice-42') THEN
			RAISE 'refused at commit';
		END IF;
		RETURN NULL;
	END $$;
	CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON customers
		DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()};

make_path("$dir/prisma");
symlink "$clients/prisma/node_modules", "$dir/prisma/node_modules"
  or die "could not link to Prisma: $!";
my ($modules) = grep { -d } "$clients/node_modules", '/usr/share/nodejs';
symlink $modules, "$dir/node_modules"
  or die "could not link to $modules: $!"
  if defined $modules;

$ENV{PGHOST}     = '127.0.0.1';
$ENV{PGPORT}     = $node->port;
$ENV{PGUSER}     = 'app';
$ENV{PGDATABASE} = 'postgres';
$ENV{DATABASE_URL} =
  'postgresql://127.0.0.1:' . $node->port . '/postgres?user=app';
# (The schema engine of Prisma, which would be fetched, is not used.)
$ENV{PRISMA_SCHEMA_ENGINE_BINARY} = '/bin/true';
$ENV{GO111MODULE}                 = 'off';
$ENV{GOPATH}                      = $gopath;
$ENV{GOCACHE}                     = "$dir/go-cache";

# As a superuser, also after the variables above
sub super
{
	my ($sql, $database) = @_;

	delete local $ENV{PGUSER};
	return $node->safe_psql($database || 'postgres', $sql);
}

sub refuse_commits
{
	my ($database, $yes) = @_;

	super($yes
		? "SET ROLE app; $refuse"
		: 'DROP FUNCTION refuse CASCADE', $database);
	return;
}

# The program of a client, from the page to what it has done
sub try_program
{
	my ($client) = @_;
	my $program  = $programs{$client};
	my $database = $client eq 'Django' ? 'django' : 'postgres';
	my $every    = $program->{every} || '1 mon';
	my ($ok, $out, $err);

	foreach my $block (@{ $blocks{$client} })
	{
		my $text = $block->{text};
		my $file = $program->{file} || ($text =~ /^# (\S+)\n/)[0];

		# Debian 12 has version 4 of pgx.
		$text =~ s{jackc/pgx/v5}{jackc/pgx/v4}
		  if $file =~ /go$/ && !-d "$gopath/src/github.com/jackc/pgx/v5";
		put($file, $text);
	}
	migrate() if $client eq 'Django';
	if ($program->{make})
	{
		($ok, $out, $err) = run_there($program->{make});
		ok($ok, "$client: made") or diag($out . $err);
		return unless $ok;
	}

	super(
		q{SELECT taskshed.remove_all_tasks(owner => 'app'); TRUNCATE customers, outbox;
			SET ROLE app; SELECT taskshed.add_task('send_invoice', '2100-01-01', '{"customer_id": 1}', task_id => 'reminder-' || i)
			FROM generate_series(1, 2) i}, $database);

	# Scheduling is part of the transaction.
	refuse_commits($database, 1);
	($ok, $out, $err) = run_there($program->{run});
	ok(!$ok, "$client: fails if it can't commit") or diag($out . $err);
	like($err . $out, qr/refused at commit/, "$client: it says so");
	is( super(
			q{SELECT string_agg(task_id, ' ') FROM taskshed.tasks WHERE task_id !~ '^reminder'},
			$database),
		'',
		"$client: then nothing is scheduled");
	refuse_commits($database, 0);
	super(
		q{TRUNCATE customers; SELECT taskshed.remove_task('invoice-42', owner => 'app')},
		$database);

	($ok, $out, $err) = run_there($program->{run});
	ok($ok, "$client: the program runs");
	is($err, '', "$client: without an error");
	like($out, qr/^invoice-42[ |]\Q$every\E$/, "$client: what it prints");
	is( super(
			q{SELECT task_id, callback, run_at AT TIME ZONE 'UTC', every, kwargs, owner, (SELECT name FROM customers WHERE id = 42)
			  FROM taskshed.tasks}, $database),
		q{invoice-42|public.send_invoice|2100-01-01 08:00:00|1 mon|}
		  . q({"note": "it's due", "customer_id": 42}|app|Ada),
		"$client: what it has done");
	super(q{SELECT taskshed.run_task('invoice-42', owner => 'app')},
		$database);
	{
		delete local $ENV{PGUSER};
		await(
			$node,
			q{SELECT string_agg(o::text, ' ') = '(42,"it''s due")' FROM outbox o},
			"$client: the callback is called",
			$database);
	}
	migrate_back() if $client eq 'Django';
	return;
}

# The extension is made by the migration of a superuser, and taken back; then the
# usual way: a superuser has made it, and the application's role migrates.
sub migrate
{
	my ($ok, $out, $err);

	super('CREATE DATABASE django OWNER app');
	foreach my $what ('migrate', 'zero')
	{
		delete local $ENV{PGUSER};
		($ok, $out, $err) =
		  run_there([ $python, "$clients/project.py", $what, 'django' ]);
		ok($ok, "Django: $what") or diag($out . $err);
		is( $node->safe_psql(
				'django',
				q{SELECT count(*) FROM pg_extension WHERE extname = 'taskshed' UNION ALL
				  SELECT count(*) FROM pg_proc WHERE proname = 'send_invoice'}),
			$what eq 'migrate' ? "1\n1" : "0\n0",
			"Django: what $what has done");
	}
	super(
		q{DROP TABLE django_migrations; ALTER SCHEMA public OWNER TO app;
		  CREATE EXTENSION taskshed; GRANT USAGE ON SCHEMA taskshed TO app},
		'django');
	($ok, $out, $err) =
	  run_there([ $python, "$clients/project.py", 'migrate', 'django' ]);
	ok($ok, 'Django: migrate as the role of the application')
	  or diag($out . $err);
	return;
}

# What the page says of that: the reverse of the first operation is the owner's.
sub migrate_back
{
	my ($ok, $out, $err) =
	  run_there([ $python, "$clients/project.py", 'zero', 'django' ]);

	ok(!$ok, 'Django: the role can not drop the extension');
	like($err, qr/must be owner of extension taskshed/, 'Django: it says so');
	return;
}

# How to get at the SQLSTATE and the hint of an error, as the page has it: by one
# of these pairs.
sub ways_to_errors
{
	my ($client) = @_;
	my $rows = table('Errors');
	my ($code, $hint) = map { tr/`//dr } @{ $rows->{$client} };

	# of another object, as the drivers do
	if ($code =~ /^of (.*)/)
	{
		my $of = $1;

		return map {
			map { s/^error\b/$of/r }
			  ways_to_errors($_)
		} 'psycopg 3', 'psycopg 2' if $hint eq $code;
	}
	$hint = ($code =~ s/\.cause\.\w+$//r) . $hint
	  if $hint =~ s/^\xe2\x80\xa6//;
	return ($code, $hint);
}

# What the page says of a client, asked of it
sub probe
{
	my ($name) = @_;
	my ($client, $says) = @{ $probes{$name} }{qw(client says)};
	my ($file, @run) =
	  $client =~ /^(psycopg|psycopg2|sqlalchemy|django)$/
	  ? ('probe.py', $python)
	  : $client eq 'prisma' ? ('prisma/probe.mjs', $newer_node)
	  :                       ('probe.mjs', 'node');
	my ($ok, $out, $err);
	my %says  = @$says;
	my $row   = $name =~ s/ with .*//r;
	my $cells = table('Reading rows')->{$row};

	# What the tables say of it, and how they say to get at the parts of an error
	if ($cells)
	{
		$says{ $read[$_] } = $reading{ $read[$_] }->{ $cells->[$_] }
		  // qr/^\Q$cells->[$_]\E is not known here$/
		  foreach 0 .. $#read;
	}
	$says{mistake} = qr/^42883 Did you mean "customer_id"\?$/;
	local $ENV{MISTAKE} = join "\n", ways_to_errors($row);

	super(
		q{SELECT taskshed.remove_all_tasks(owner => 'app');
		  SET ROLE app; SELECT taskshed.add_task('send_invoice', '2100-01-01', '{"customer_id": 1}', every => '1 month',
			task_id => 'monthly', until => 'infinity')});
	put($file, slurp_file("$clients/" . basename($file)));
	($ok, $out, $err) = run_there([ @run, "$dir/$file", $client ]);
	ok($ok, "$name: asked") or diag($err);
	my %said = $out =~ /^([^:]+): (.*)$/mg;
	like($said{$_} // '', $says{$_}, "$name: $_") foreach sort keys %says;
	return;
}

foreach my $client (sort keys %programs)
{
  SKIP:
	{
		my $why = missing($client);

		if (defined $why)
		{
			fail("$client is there: $why") if $wanted{ $client =~ s/ //r };
			skip "$client: $why", 1;
		}
		eval { try_program($client); 1 } or fail("$client: $@");
		probe($_)
		  foreach grep { /^\Q$client\E(?: with|$)/ } sort keys %probes;
	}
}

# Many at once
SKIP:
{
	my $why = missing('psycopg 3');

	skip "many at once: $why", 1 if defined $why;
	super(q{SELECT taskshed.remove_all_tasks(owner => 'app')});
	put('many.py', $many->[0]->{text});
	my ($ok, $out, $err) = run_there([ $python, in_dir('many.py') ]);
	is($err, '', 'many at once: the program runs');
	is( super(
			q{SELECT string_agg(task_id || ' ' || kwargs || to_char(run_at AT TIME ZONE 'UTC', ' MM-DD HH24:MI'), ', ' ORDER BY run_at)
			  FROM taskshed.tasks WHERE owner = 'app'}
		),
		join(', ',
			'first {"customer_id": 42} 02-01 08:00',
			'second {"customer_id": 42} 02-02 08:00',
			'third {"customer_id": 42} 02-03 08:00'),
		'many at once: they are there, and moved');
	super(q{SELECT taskshed.remove_all_tasks(owner => 'app')});
}

# Lists that may be empty; and a task that is not there
my $either = qr/either task_ids or group_id must be given/;

sub error_of
{
	my ($call) = @_;

	delete local $ENV{PGUSER};
	my ($rc, $out, $err) = $node->psql('postgres', "SELECT taskshed.$call");
	return $err;
}
super(
	q{SELECT taskshed.add_task('send_invoice', '2100-01-01', '{"customer_id": 1}', task_id => 'a')}
);

sub outcome
{
	my ($function, $list) = @_;
	my $call =
		$function eq 'fetch_tasks' ? 'count(*) FROM taskshed.fetch_tasks(%s)'
	  : $function eq 'update_tasks'
	  ? q{taskshed.update_tasks('{"description": "d"}', %s)}
	  : "taskshed.$function(%s)";

	delete local $ENV{PGUSER};
	my ($rc, $out, $err) =
	  $node->psql('postgres', 'SELECT ' . sprintf $call, $list);
	return $err =~ $either
	  ? 'error 22023, unless there is a `group_id`'
	  : "$function $err$out";
}
my %nothing = (
	add_tasks              => '{}',
	update_execution_times => '0',
	fetch_tasks            => '0');
my $lists = table('Lists that may be empty');
foreach my $function (sort keys %$lists)
{
	my ($empty, $null) = map {
			/^(?:nothing is done|no rows|0: nothing is done)$/
		  ? "$function " . ($nothing{$function} // '0')
		  : $_ eq '**all tasks**' ? "$function 1"
		  : $_
	} @{ $lists->{$function} };

	is(outcome($function, $function eq 'add_tasks' ? q{'[]'} : q{'{}'}),
		$empty, "$function: an empty list");
	is(outcome($function, 'NULL'), $null, "$function: NULL");
	is(outcome($function, q{(SELECT array_agg('a'::text) WHERE false)}),
		$null, "$function: array_agg of no rows")
	  if $function =~ /_tasks$/ && $function ne 'add_tasks';
}
is( join(' ', sort keys %$lists),
	super(
		q{SELECT string_agg(proname, ' ' ORDER BY proname COLLATE "C") FROM pg_proc
		  WHERE pronamespace = 'taskshed'::regnamespace AND proargnames && '{tasks,task_ids}' AND proname <> 'set_owner'}
	),
	'each function with a list is in the table');
foreach my $title (sort keys %seen)
{
	my $rows = table($title);

	foreach my $client (sort keys %{ $seen{$title} })
	{
		is( join(' ', @{ $rows->{$client} }),
			$seen{$title}->{$client},
			"$title: $client");
	}
	is( join(', ', sort grep { !$probes{$_} } keys %$rows),
		join(', ', sort keys %{ $seen{$title} }),
		"$title: of all others there are probes");
}
like(error_of('remove_tasks(ARRAY[])'),
	qr/cannot determine type of empty array/, 'ARRAY[]');
is( super(
		q{SELECT taskshed.remove_tasks(ARRAY[]::text[]), taskshed.remove_tasks(ARRAY(SELECT 'a' WHERE false)),
		  (SELECT taskshed.remove_tasks(coalesce(array_agg('a'::text), '{}')) WHERE false)}
	),
	'0|0|0',
	'empty arrays');
is( super(
		q{SELECT count(*), count(task_id) FROM taskshed.fetch_task('none')}),
	'1|0',
	'fetch_task has a row of NULLs');
like(
	error_of(q{add_task('send_invoice', 'infinity', '{"customer_id": 1}')}),
	qr/run_at must be finite/,
	'no other time is infinite');

$node->stop;
done_testing();
