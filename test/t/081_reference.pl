
# docs/reference.md is what there is.  It is compared with the catalog, both ways: functions with
# their parameters, types and results, views and types with their columns, settings; with the
# sources: SQLSTATEs, statuses and states.  And what it says of defaults, NULL and errors is tried.

use strict;
use warnings;
use utf8;
use open ':std', ':encoding(UTF-8)';

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedMarkdown qw(read_page);
use TaskshedReference;
use TaskshedTest;
use Test::More;

my $root          = "$FindBin::RealBin/../..";
my $page          = read_page("$root/docs/reference.md");
my $sections      = reference_read($page);
my $node          = taskshed_node('reference');
my ($script_name) = glob "$root/sql/taskshed--?.?.sql";
my $script        = read_page($script_name);
my $sources       = join "\n",
  map { read_page($_) =~ s{/\*.*?\*/}{}gsr } glob "$root/src/*/*.c";

query(
	q{
CREATE ROLE app LOGIN;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';

-- How a call ends
CREATE FUNCTION tried(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE sql;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
CREATE FUNCTION short(type oid) RETURNS text LANGUAGE sql AS $$
	SELECT replace(format_type(type, NULL), 'timestamp with time zone', 'timestamptz') $$}
);

# Rows of a query, each a reference to its fields.
sub rows
{
	my ($sql) = @_;

	return map { [ split /\|/, $_, -1 ] } split /\n/, query($sql);
}

# How calls of functions end, for the role app: 'ok' or SQLSTATEs.
sub tried
{
	my ($calls, $before) = @_;
	my @answers = split /\n/, query(
			'SET ROLE app; SET client_min_messages = error; '
		  . ($before // '')
		  . join(
			' ',
			map {
					'SELECT public.tried($call$'
				  . (/^CALL / ? '' : 'SELECT ')
				  . $_
				  . '$call$);'
			} @$calls));

	die "there are answers missing" if @answers != @$calls;
	return @answers;
}

# The functions, as the catalog has them
my %functions;
foreach my $row (
	rows(
		q{SELECT proname, n, name, short(type), n <= pronargs - pronargdefaults, mode,
			CASE prokind WHEN 'p' THEN 'procedure' ELSE replace(pg_get_function_result(p.oid), 'timestamp with time zone', 'timestamptz') END
		FROM pg_proc p LEFT JOIN LATERAL unnest(proargnames, coalesce(proallargtypes, proargtypes::oid[]), proargmodes::text[])
			WITH ORDINALITY AS a (name, type, mode, n) ON true
		WHERE pronamespace = 'taskshed'::regnamespace AND proname !~ '^_' ORDER BY proname, n}
	))
{
	my ($name, $n, $param, $type, $required, $mode, $returns) = @$row;
	my $function = $functions{$name} ||=
	  { returns => $returns, params => [], columns => [] };

	if ($mode eq 'o')
	{
		push @{ $function->{columns} }, "$param $type";
	}
	elsif ($n ne '')
	{
		push @{ $function->{params} },
		  { name => $param, type => $type, required => $required eq 't' };
	}
}

# A value of each parameter that must be given, with which the call does no harm
my %valid = (
	'callback'                             => 'public.nothing',
	'changes'                              => '{}',
	'command'                              => 'SELECT 1',
	'name'                                 => 'alias',
	'new_owner'                            => 'app',
	'run_at'                               => '2100-01-01',
	'schedule'                             => '0 4 * * *',
	'task_id'                              => 'task',
	'tasks jsonb'                          => '[]',
	'tasks taskshed.task_execution_time[]' => '{}',);

# A value of each type
my %sample = (
	'boolean'          => 'true',
	'double precision' => '1',
	'integer'          => '1',
	'interval'         => '1 hour',
	'jsonb'            => '{}',
	'name'             => 'app',
	'text'             => 'x',
	'text[]'           => '{x}',
	'timestamptz'      => '2100-01-01',);

# A call: what must be given, and other values, which are SQL or undefined to leave one out.
sub call
{
	my ($name, %others) = @_;
	my %values;

	foreach my $param (@{ $functions{$name}{params} })
	{
		my $value = $valid{"$param->{name} $param->{type}"}
		  // $valid{ $param->{name} };

		$values{ $param->{name} } = "'$value'::$param->{type}"
		  if $param->{required}
		  || (claim($name, $param->{name}) // {})->{required};
	}
	%values = (%values, %others);
	return "count(*) FROM taskshed.$name("
	  . join(', ',
		map  { "$_ => $values{$_}" }
		grep { defined $values{$_} } sort keys %values)
	  . ')';
}

# What the page says of a parameter
sub claim
{
	my ($function, $param) = @_;
	my ($claim) =
	  grep { $_->{name} eq $param } @{ $sections->{$function}{params} };

	return $claim;
}

# What an element of the catalog is called in messages is the name of a fact: each by itself.
my $said = reference_facts($sections);
my %there;

foreach my $name (sort keys %functions)
{
	my $function = $functions{$name};

	# Where it matters what comes after it, SQL has a default and the function insists.
	my @insists =
	  grep { !$_->{required} && (claim($name, $_->{name}) // {})->{required} }
	  @{ $function->{params} };

	foreach my $param (@insists)
	{
		is((tried([ call($name, $param->{name} => undef) ]))[0],
			'22023', "$name: $param->{name} must be given");
		$param->{required} = 1;
	}
	$there{"function $name"} =
	  reference_fact(@$function{qw(params returns columns)});
}
foreach my $row (
	rows(
		q{SELECT CASE relkind WHEN 'v' THEN 'view ' ELSE 'type ' END || relname, string_agg(attname || ' ' || short(atttypid), E'; ' ORDER BY attnum)
		FROM pg_class c JOIN pg_attribute ON attrelid = c.oid
		WHERE relnamespace = 'taskshed'::regnamespace AND relkind IN ('v', 'c') AND coalesce(obj_description(c.oid), '') !~ '^Internal' AND attnum > 0 AND NOT attisdropped GROUP BY c.oid}
	))
{
	$there{ $row->[0] } = $row->[1] =~ s/; /\n/gr;
}
foreach my $row (
	rows(
		q{SELECT name, current_setting(name), coalesce(unit, '-'), CASE vartype WHEN 'bool' THEN 'on, off'
			WHEN 'enum' THEN array_to_string(enumvals, ', ') ELSE min_val || ' ... ' || max_val END,
			CASE context WHEN 'sighup' THEN 'server' WHEN 'superuser' THEN 'more' ELSE context END
		FROM pg_settings WHERE name ~ '^taskshed\.'}
	))
{
	my ($name, $default, $unit, $range, $for) = @$row;

	$range =~ s/\.\.\./…/;
	$unit  =~ s/^-$/–/;
	$there{"setting $name"} = "$default, unit $unit, $range, for $for";
}
my %names = (%$said, %there);
foreach my $name (sort keys %names)
{
	is($said->{$name} // 'not on the page',
		$there{$name} // 'not there', $name);
}

# Defaults and NULL
foreach my $name (sort keys %functions)
{
	foreach my $param (grep { $_->{required} } @{ $functions{$name}{params} })
	{
		next if $name eq 'execute';
		my $claim = claim($name, $param->{name}) // next;

		is( (tried([ call($name, $param->{name} => 'NULL') ]))[0],
			$claim->{text} =~ /NULL: 22023/ ? '22023' : 'ok',
			"$name: NULL for $param->{name}");
	}

	# (All are tried where any is said to be for later.)
	next
	  unless grep { $_->{text} =~ /^later/ }
	  @{ $sections->{$name}{params} || [] };
	my @params  = grep { !$_->{required} } @{ $functions{$name}{params} };
	my @answers = tried(
		[
			map {
				call($name, $_->{name} => "'$sample{$_->{type}}'::$_->{type}")
			} @params
		]);

	foreach my $param (@params)
	{
		my $answer = shift @answers;
		my $claim  = claim($name, $param->{name}) // next;

		is( $answer eq '0A000'             ? 'later: 0A000' : '',
			$claim->{text} =~ /^(later.*)/ ? $1             : '',
			"$name: whether $param->{name} is for later");
	}
}
foreach my $limit (
	[ 'add_task',     'task_id',     255 ],
	[ 'add_task',     'group_id',    255 ],
	[ 'add_task',     'description', 1000 ],
	[ 'add_callback', 'name',        255 ])
{
	my ($name, $param, $limit) = @$limit;
	my $text = claim($name, $param)->{text} =~ tr/,//dr;

	like($text, qr/\b$limit characters/, "$name: the limit of $param");
	is( join(
			' ',
			tried(
				[
					map { call($name, $param => "repeat('x', $_)") } $limit,
					$limit + 1
				])),
		'ok 22001',
		"$name: it is that of $param");
}
is( query(
		q{SELECT count(*) FROM taskshed.next_runs('0 4 * * *'); SELECT tried('SELECT taskshed.next_runs($$0 4 * * *$$, n => 10001)')}
	),
	claim('next_runs', 'n')->{default} . "\n22023",
	'next_runs: the default of n, and the limit');
my %of_retries = $sources =~ /^#define\s+DEFAULT_(RETRY_\w+)\s+(.*)$/mg;
is_deeply(
	\%of_retries,
	{
		RETRY_DELAY     => '(10 * USECS_PER_SEC)',
		RETRY_BACKOFF   => '2.0',
		RETRY_MAX_DELAY => 'USECS_PER_HOUR'
	},
	'the defaults of retries');
is( join(', ',
		map { claim('add_task', "retry_$_")->{default} }
		  qw(delay backoff max_delay)),
	'10 seconds, 2, 1 hour, or `retry_delay` if that is longer',
	'are those of the page');

# Errors that many have in common
sub refers_to
{
	my ($name, $what) = @_;
	my $errors = $sections->{$name}{errors} // '';

	return 1 if index($errors, $what) >= 0;
	foreach my $other ($errors =~ /\bas \[(\w+)\]/g)
	{
		return 1 if refers_to($other, $what);
	}
	return 0;
}

foreach my $name (grep { $_ ne 'execute' } sort keys %functions)
{
	my %has = map { $_->{name} => 1 } @{ $functions{$name}{params} };
	my %one =
		$has{task_ids}       ? (task_ids => q{'{task}'})
	  : $name eq 'next_runs' ? (task_id => q{'task'})
	  :                        ();

	is( (   tried(
				[ call($name, %one) ],
				'SET default_transaction_read_only = on; '))[0] eq '25006'
		? 'changes'
		: 'looks',
		refers_to($name, '#errors-of-every-change') ? 'changes' : 'looks',
		"$name: whether it changes anything");
	if ($has{owner})
	{
		is( join(
				' ',
				tried(
					[
						map { call($name, %one, owner => "'$_'") } 'nobody',
						'postgres'
					])),
			refers_to($name, '`owner`')
			  || refers_to($name, '#which-tasks')
			? '42704 42501'
			: 'not said',
			"$name: errors of owner");
	}
	if ($has{task_ids})
	{
		my $without = $has{owner}
		  && claim($name, 'task_ids')->{default} eq 'all tasks of the owner';

		is( join(
				' ',
				tried(
					[
						call($name),
						call($name, %one),
						call($name, %one, group_id => q{'g'})
					])),
			($without ? 'ok' : '22023') . ' ok 22023',
			"$name: which tasks");
	}
}

# The errors that a function's section names are raised, and others that are tried here are named
query(
	q{
CREATE DOMAIN positive AS integer CHECK (value > 0);
CREATE FUNCTION takes(at timestamptz DEFAULT NULL, n integer DEFAULT NULL, p positive DEFAULT NULL) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION twice(n integer) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION twice(n text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION forbidden() RETURNS void LANGUAGE sql AS '';
REVOKE EXECUTE ON FUNCTION forbidden() FROM PUBLIC;
CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;
GRANT EXECUTE ON PROCEDURE taskshed.execute TO app;
CREATE ROLE other LOGIN;
GRANT other TO app;
SET ROLE app;
SELECT taskshed.add_callback('forgotten', 'nothing');
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'once'), taskshed.add_task('nothing', every => '1 day', task_id => 'daily', paused => true),
	taskshed.add_task('commits', '2100-01-01', task_id => 'commits'), taskshed.add_task('forgotten', '2100-01-01', task_id => 'forgotten'),
	taskshed.add_task('taskshed.execute', '2100-01-01', '{"command": "COMMIT"}', task_id => 'command');
SELECT taskshed.remove_callback('forgotten');
SET ROLE other;
SELECT taskshed.add_task('nothing', '2100-01-01', task_id => 'once')}
);
my $limit_is_1 =
  'RESET ROLE; SET taskshed.max_tasks_per_role = 1; SET ROLE app; ';
my $execute = q{taskshed.add_task('taskshed.execute', kwargs => };
my @cases   = (
	[
		'add_task',
		'22023',
		q{taskshed.add_task('nothing', every => '1 day', schedule => '0 4 * * *')}
	],
	[
		'add_task', '22023',
		q{taskshed.add_task('nothing', run_type => 'recurring')}
	],
	[
		'add_task',
		'22023',
		q{taskshed.add_task('nothing', '2100-01-02', until => '2100-01-01')}
	],
	[
		'add_task', '22001',
		q{taskshed.add_task('nothing', group_id => repeat('x', 256))}
	],
	[
		'add_task', '22015',
		q{taskshed.add_task('nothing', timeout => '2147483647 days')}
	],
	[ 'add_task', '42883', q{taskshed.add_task('no_such')} ],
	[
		'add_task', '42883',
		q{taskshed.add_task('nothing', kwargs => '{"n": 1}')}
	],
	[
		'add_task', '42725',
		q{taskshed.add_task('twice', kwargs => '{"n": 1}')}
	],
	[ 'add_task', '42809', q{taskshed.add_task('count')} ],
	[
		'add_task', '3F000',
		q{taskshed.add_task('nowhere', validate => false)},
		q{SET search_path = ''; }
	],
	[ 'add_task', '42501', q{taskshed.add_task('forbidden')} ],
	[
		'add_task',                                    '53400',
		q{taskshed.add_task('nothing', '2100-01-01')}, $limit_is_1
	],
	[ 'add_task', '0A000', q{taskshed.add_task('nothing', priority => 1)} ],
	[
		'add_task', '22P02',
		q{taskshed.add_task('takes', kwargs => '{"n": "one"}')}
	],
	[
		'add_task', '22003',
		q{taskshed.add_task('takes', kwargs => '{"n": 99999999999}')}
	],
	[
		'add_task', '22007',
		q{taskshed.add_task('takes', kwargs => '{"at": "soon"}')}
	],
	[
		'add_task', '22008',
		q{taskshed.add_task('takes', kwargs => '{"at": "2100-13-45"}')}
	],
	[
		'add_task', '23514',
		q{taskshed.add_task('takes', kwargs => '{"p": 0}')}
	],
	[
		'add_tasks',
		'22023',
		q{taskshed.add_tasks('[{"callback": "nothing", "interval": "1 day"}]')}
	],
	[
		'add_tasks',
		'22023',
		q{taskshed.add_tasks('[{"callback": "nothing", "task_id": "a"}, {"callback": "nothing", "task_id": "a"}]')}
	],
	[
		'add_tasks',
		'22P02',
		q{taskshed.add_tasks('[{"callback": "nothing", "max_runs": "one"}]')}
	],
	[
		'add_tasks',
		'22007',
		q{taskshed.add_tasks('[{"callback": "nothing", "timeout": "long"}]')}
	],
	[
		'add_tasks',
		'22008',
		q{taskshed.add_tasks('[{"callback": "nothing", "run_at": "2100-13-45"}]')}
	],
	[
		'update_tasks', '22023',
		q{taskshed.update_tasks('{"callback": "nothing"}', '{once}')}
	],
	[
		'update_tasks', '22023',
		q{taskshed.update_tasks('{"run_at": null}', '{once}')}
	],
	[
		'update_tasks', '22023',
		q{taskshed.update_tasks('{"every": null}', '{daily}')}
	],
	[
		'update_tasks', '42883',
		q{taskshed.update_tasks('{"kwargs": {}}', '{forgotten}')}
	],
	[
		'update_execution_time', '22023',
		q{taskshed.update_execution_time('once', 'infinity')}
	],
	[
		'update_execution_times',
		'22023',
		q{taskshed.update_execution_times(array[('once', now()), ('once', now())]::taskshed.task_execution_time[])}
	],
	[ 'fetch_tasks', '22023', q{taskshed.fetch_tasks('{once}', 'g')} ],
	[ 'try_task',    '42501', q{taskshed.try_task('none')} ],
	[ 'try_task',    '42883', q{taskshed.try_task('forgotten')} ],
	[ 'try_task',    '0A000', q{taskshed.try_task('command')} ],
	[ 'try_task',    '2D000', q{taskshed.try_task('commits')} ],
	[
		'next_runs', '22023',
		q{taskshed.next_runs('0 4 * * *', task_id => 'once')}
	],
	[ 'next_runs', '42501', q{taskshed.next_runs(task_id => 'none')} ],
	[
		'next_runs', '0A000',
		q{taskshed.next_runs('0 4 * * *', spread => '1 hour')}
	],
	[ 'describe', '22023', q{taskshed.describe('0 4 * * someday')} ],
	[ 'describe', '22023', q{taskshed.describe('0 4 * * *', 'Nowhere')} ],
	[
		'add_callback',
		'42710',
		q{taskshed.add_callback('a', 'nothing'), taskshed.add_callback('a', 'nothing')}
	],
	[ 'add_callback', '42883', q{taskshed.add_callback('a', 'no_such')} ],
	[ 'add_callback', '42809', q{taskshed.add_callback('a', 'count')} ],
	[
		'add_callback', '22001',
		q{taskshed.add_callback(repeat('x', 256), 'nothing')}
	],
	[ 'add_callback', '22023', q{taskshed.add_callback('', 'nothing')} ],
	[ 'execute',      '22004', $execute . q{'{"command": null}')} ],
	[ 'execute',      '42601', $execute . q{'{"command": "VACUM"}')} ],
	[ 'execute',      '25001', $execute . q{'{"command": "BEGIN"}')} ],
	[
		'execute', '0A000',
		$execute . q{'{"command": "COPY pg_class TO STDOUT"}')}
	],
	[ 'execute',   '55000', q{CALL taskshed.execute('SELECT 1')} ],
	[ 'set_owner', '22023', q{taskshed.set_owner('other')} ],
	[ 'set_owner', '42710', q{taskshed.set_owner('other', '{once}')} ],
	[ 'set_owner', '42501', q{taskshed.set_owner('postgres', '{once}')} ],
	[
		'set_owner',                               '53400',
		q{taskshed.set_owner('other', '{daily}')}, $limit_is_1
	],
	[ 'activate',       '42501', q{taskshed.activate()} ],
	[ 'import_pg_cron', '55000', q{taskshed.import_pg_cron()} ],);

# What takes more, and the test that does it
my %elsewhere = (
	'add_task 55000' =>
	  [ 'sql/permissions.sql', qr/which is not permitted to log in/ ],
	'set_owner 55000' =>
	  [ 'sql/set_owner.sql', qr/set_owner\('regress_nologin'/ ],
	'cancel_task 0A000'    => [ 't/049_cancelled.pl', qr/0A000/ ],
	'cancel_tasks 0A000'   => [ 't/049_cancelled.pl', qr/0A000/ ],
	'import_pg_cron 42501' =>
	  [ 't/065_pg_cron.pl', qr/42501.*cron\.timezone/ ],);
my %without_preload =
  map { ("$_ 55000" => 1) } qw(fetch_task next_wakeup next_runs try_task);
my %tried;
foreach my $case (@cases)
{
	my ($name, $code, $call, $before) = @$case;

	is((tried([$call], $before))[0], $code, "$name raises $code: $call");
	$tried{"$name $code"} = 1;
}
foreach my $name (sort keys %functions)
{
	my %codes = map { ("$name $_" => 1) }
	  ($sections->{$name}{errors} // '') =~ /\b([0-9A-Z]{4}[0-9])\b/g;

	is( join(', ', sort keys %codes),
		join(', ',
			sort grep { /^$name / }
			  keys %{ { %tried, %elsewhere, %without_preload } }),
		"$name: the errors that it has") if $sections->{$name};
}
foreach my $error (sort keys %elsewhere)
{
	my ($file, $pattern) = @{ $elsewhere{$error} };

	like(read_page("$root/test/$file"), $pattern, "$error is tried by $file");
}

# The SQLSTATEs that the sources raise or record, by the server's list of them
my (%code_of, %name_of);
foreach my $line (split /\n/,
	read_page($node->config_data('--sharedir') . '/errcodes.txt'))
{
	my ($code, undef, $macro, $name) =
	  $line =~ /^(\w{5})\s+([EWS])\s+(ERRCODE_\w+)(?:\s+(\w+))?/
	  or next;

	$code_of{$macro} = $code;
	if (defined $name)
	{
		$code_of{$name} = $code;
		$name_of{$code} = $name;
	}
}
my %raised;
my %of_level = (ERROR => 'XX000', WARNING => '01000', NOTICE => '00000');
$raised{ $code_of{$_} } = $_
  foreach $sources =~ /(?:errcode\(|sqlerrcode\s*=\s*)(ERRCODE_\w+)/g;
$raised{$_} = $_ foreach $sources =~ /outcome_set_status\([^;]*?"(\w{5})"/g;
$raised{ $of_level{$_} } = $_
  foreach $sources =~ /\belog\((ERROR|WARNING|NOTICE)\b/g;
while ($sources =~ /\bereport\((ERROR|WARNING|NOTICE),(.*?);/sg)
{
	$raised{ $of_level{$1} } = $1 if $2 !~ /errcode\(/;
}
my %caught = map { $_ => 1 } $script =~ /WHEN SQLSTATE '(\w+)'/g;
foreach my $condition ($script =~ /\bRAISE ([a-z_]+)\b/g)
{
	$raised{ $code_of{$condition} // "$condition?" } = $condition;
}
$raised{$_} = $_
  foreach grep { !$caught{$_} }
  $script =~ /(?:RAISE SQLSTATE|ERRCODE =) '(\w+)'/g;
unlike(
	$script,
	qr/\bRAISE EXCEPTION\b/,
	'each error of the script has an SQLSTATE');

my %described =
  map { $_->[0] => $_->[1] } @{ $sections->{SQLSTATEs}{tables}{SQLSTATE} };
foreach my $code (sort keys %{ { %raised, %described } })
{
	is( $described{$code} // 'not on the page',
		$raised{$code} ? $name_of{$code} : 'not raised',
		"SQLSTATE $code");
}

# Statuses and states
sub words_of
{
	my ($heading, $head) = @_;

	return join ' | ',
	  map { $_->[0] =~ tr/`//dr } @{ $sections->{$heading}{tables}{$head} };
}

my ($statuses) = $sources =~ /run_status_words\[\] = \{(.*?)NULL/s;
is( words_of('Statuses of a run', 'status'),
	join(' | ', $statuses =~ /\{"(\w+)"/g),
	'statuses of a run');
my @states = $script =~ /(CASE WHEN x\.id IS NOT NULL .*?) END AS state/sg;
cmp_ok(scalar @states, '>', 0, 'a view has states');
foreach my $cases (@states)
{
	is( words_of('States of a task', 'state'),
		join(' | ', $cases =~ /(?:THEN|ELSE) '(\w+)'/g),
		'states of a task');
}
my ($served) =
  $sources =~ /(CStringGetTextDatum\(state == TS_DB_IDLE \? .*?\);)/s;
is( join(' | ', sort split / \| /, words_of('States of a database', 'state')),
	join(' | ',
		sort +($served . join ' ', $sources =~ /\bstate = "[\w ]+"/g) =~
		  /"([\w ]+)"/g),
	'states of a database');

# The page has a list of what is on it, and names nothing else
my ($contents) = $page =~ /^(- .*?)^## /ms;
my %listed = map { $_ => 1 } $contents =~ /\]\(#([\w-]+)\)/g;
foreach my $heading ($page =~ /^#{2,3} (.*)$/mg)
{
	my $anchor = lc($heading =~ s/[^\w -]//gr) =~ tr/ /-/r;

	ok(delete $listed{$anchor}, "$heading is in the list");
}
is(join(' ', sort keys %listed), '', 'nothing else is');
my %mentioned = map { $_ => 1 } $page =~ /\btaskshed\.(\w+)/g;
foreach my $name (sort keys %mentioned)
{
	ok( grep({ /^(?:function|view|type|setting) (?:taskshed\.)?$name$/ }
			keys %there),
		"there is taskshed.$name");
}

# Without the library: what needs it says so.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
foreach my $name (grep { !/^(?:execute|\w+_pg_cron)$/ } sort keys %functions)
{
	my %one  = $name eq 'next_runs' ? (task_id => q{'once'}) : ();
	my $said = refers_to($name, '#errors-of-every-change')
	  || refers_to($name, '55000');

	is((tried([ call($name, %one) ]))[0] eq '55000' ? 1 : 0,
		$said, "$name: whether it can be without preload");
}

$node->stop;
done_testing();
