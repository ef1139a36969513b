# README.md is true: every block of it is run, in order, as a reader would; how is told in
# TaskshedPages.pm.  The chapters in docs/ are the business of 080_pages.pl.

use strict;
use warnings;
use utf8;
use open ':std', ':encoding(UTF-8)';

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use TaskshedMarkdown qw(read_page);
use TaskshedPages    qw(run_page);
use Test::More;

# The page has a superuser of this name.
$ENV{PGUSER} = 'postgres';

# A bare server, as it is before somebody has read the page.
my $node = PostgreSQL::Test::Cluster->new('readme');
$node->init(extra => [ '-U', 'postgres' ]);
$node->start;

my ($rc, $stdout, $stderr) =
  $node->psql('postgres', 'CREATE EXTENSION taskshed');
isnt($rc, 0, 'without preload the extension is refused');
like(
	$stderr,
	qr/HINT: .*shared_preload_libraries = 'taskshed'/,
	'and the hint says what to do');

run_page(
	{
		node     => $node,
		database => 'postgres',
		user     => 'postgres',
		role     => undef
	},
	'README.md');

$node->stop;
done_testing();
