/*-------------------------------------------------------------------------
 *
 * database_hold.c
 *		Keeps our processes out of a database that somebody must have alone.
 *
 * DROP DATABASE and some others are refused while anybody is connected to the
 * database.  Our processes are not to be in the way: whoever may give such a
 * command has them ended first, and none is started until the end of the
 * transaction.  If the command is refused or rolled back they come back at
 * once, and the runs that were ended for it do not count as interruptions of
 * their tasks.
 *
 * A hold is a count in the database's entry in shared memory, raised before
 * anybody looks who is there.  A process of ours makes itself known in its slot
 * or entry first and looks at the count then, so it is seen or it leaves by
 * itself, and one that is still on its way finds that it is not expected any
 * more.  Holds end with the transaction, or subtransaction, that has taken them,
 * and so with its process, too.  They end as well when it is prepared.  The server
 * lets nobody in then until a RENAME is over, but for what closes a database it
 * does: when that is committed the launcher ends whom it finds there.
 *
 * A database that was opened or created is looked into when that has committed.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "commit/commit.h"

/*
 * How long (us) to wait for our processes to leave.  One whose callback does not
 * react is in the way as any other session would be, and the server says so.
 */
#define PATIENCE		(5 * USECS_PER_SEC)

/* How long (ms) to wait before looking again whether they have left, at most. */
#define MAX_LOOK_DELAY	20

/* What this transaction has to do with a database. */
typedef struct Hold
{
	TsDatabase *db;				/* reserved; NULL if shared memory has no room
								 * for it, so that no process of ours is there */
	SubTransactionId subid;		/* that has taken it */
	bool		keeps_out;		/* else only to be looked into */
	bool		closed;			/* at commit, and all others may come before */
	bool		opened;			/* at commit */
	bool		dropped;		/* at commit */
} Hold;

static List *holds = NIL;		/* in TopMemoryContext */

/*
 * Forget what is kept of a database that is gone: nobody will ask what its
 * workers were at, or why it has none.
 */
static void
database_hold_forget(TsDatabase *db)
{
	Oid			database = db->oid;

	SpinLockAcquire(&db->mutex);
	db->stopped = false;
	SpinLockRelease(&db->mutex);
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		TsWorker   *worker = &ts_shared->workers[i];

		SpinLockAcquire(&worker->mutex);
		if (worker->state == TS_WORKER_FREE && worker->database == database)
			worker->unseen = false;
		SpinLockRelease(&worker->mutex);
	}
}

/*
 * End a hold, since the transaction, or the subtransaction that has taken it,
 * is over.
 */
static void
database_hold_end(Hold *hold, XactEvent event)
{
	bool		opened = (hold->opened && event == XACT_EVENT_COMMIT);

	if (hold->db == NULL)
	{
		if (opened)
			shared_look_around();	/* when there is room */
		return;
	}
	if (hold->keeps_out || opened)
	{
		TimestampTz now = GetCurrentTimestamp();

		SpinLockAcquire(&hold->db->mutex);
		if (hold->keeps_out)
		{
			Assert(hold->db->holds > 0);
			hold->db->holds--;
		}
		if (hold->db->state == TS_DB_WANTED)
			hold->db->start_at = now;
		SpinLockRelease(&hold->db->mutex);
	}
	/* one whose scheduler is away may be closed or gone now */
	if (hold->keeps_out && event != XACT_EVENT_ABORT)
		database_end_sleep(hold->db);
	if (hold->dropped && event == XACT_EVENT_COMMIT)
		database_hold_forget(hold->db);
	if (opened)
		database_want_scheduler(hold->db);
	database_release(hold->db);
	if (hold->keeps_out || opened)
		shared_wake_launcher();
}

static void
database_hold_xact_callback(XactEvent event, void *arg)
{
	ListCell   *lc;

	if (event == XACT_EVENT_PRE_PREPARE)
	{
		foreach(lc, holds)
		{
			Hold	   *hold = lfirst(lc);

			if (hold->opened || hold->closed)
				prepared_mark(PREPARED_DATABASES);
		}
	}
	if (holds == NIL ||
		(event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE))
		return;
	foreach(lc, holds)
	{
		database_hold_end(lfirst(lc), event);
	}
	list_free_deep(holds);
	holds = NIL;
}

/*
 * End the holds of a savepoint that is rolled back to: a command that was
 * refused is over then.
 */
static void
database_hold_subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	ListCell   *lc;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	foreach(lc, holds)
	{
		Hold	   *hold = lfirst(lc);

		if (hold->subid != mine)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			hold->subid = parent;
		else
		{
			database_hold_end(hold, XACT_EVENT_ABORT);
			holds = foreach_delete_current(holds, lc);
			pfree(hold);
		}
	}
}

/* Set the callbacks: once a process, and only with shared memory. */
void
database_hold_init(void)
{
	RegisterXactCallback(database_hold_xact_callback, NULL);
	RegisterSubXactCallback(database_hold_subxact_callback, NULL);
}

/* Enter that this transaction has to do with a database. */
static Hold *
database_hold_enter(Oid database)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	Hold	   *hold = palloc0(sizeof(Hold));

	hold->subid = GetCurrentSubTransactionId();
	holds = lappend(holds, hold);
	hold->db = database_try_reserve(database);
	MemoryContextSwitchTo(old);
	return hold;
}

/*
 * End those of our processes in a database that are not in pids, and add them.
 * Say whether there is any, ended or not, that has not left its slot.  One that
 * has not come to its slot yet will not stay there.
 *
 * The scheduler goes first: it would learn that its workers have gone, and go
 * itself before it has written down what they were at.  Its successor will.
 */
List *
database_hold_end_processes(TsDatabase *db, List *pids, bool *found)
{
	Oid			database;
	int			pid;

	/* the scheduler, if there is one */
	SpinLockAcquire(&db->mutex);
	database = db->oid;
	pid = db->scheduler_pid;
	if (db->state == TS_DB_STARTING)
		database_set_state(db, TS_DB_WANTED);
	SpinLockRelease(&db->mutex);
	*found = (pid != 0);
	if (pid != 0)
	{
		if (!list_member_int(pids, pid))
		{
			kill(pid, SIGTERM);
			pids = lappend_int(pids, pid);
		}
		return pids;
	}

	/* the workers, when it has gone */
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		TsWorker   *worker = &ts_shared->workers[i];

		pid = 0;
		SpinLockAcquire(&worker->mutex);
		if (worker->database == database && worker->state == TS_WORKER_ASKED)
			worker->state = TS_WORKER_FREE;
		else if (worker->database == database && worker->state != TS_WORKER_FREE)
		{
			/* a callback may have given the command: its run comes to its end */
			worker->retire = true;
			if (worker->pid != MyProcPid)
			{
				pid = worker->pid;
				worker->bystander = true;
			}
		}
		SpinLockRelease(&worker->mutex);
		if (pid == 0)
			continue;
		*found = true;
		if (!list_member_int(pids, pid))
		{
			kill(pid, SIGTERM);
			pids = lappend_int(pids, pid);
		}
	}
	return pids;
}

/*
 * Return whether one of these is still connected to the database.  It leaves
 * its slot before.
 */
static bool
database_hold_any_there(List *pids, Oid database)
{
	ListCell   *lc;

	foreach(lc, pids)
	{
		PGPROC	   *proc = BackendPidGetProc(lfirst_int(lc));

		if (proc != NULL && proc->databaseId == database)
			return true;
	}
	return false;
}

/*
 * End our processes in a database, and keep it free of them until the end of
 * the transaction.  The caller has checked that the user may ask for that.
 */
static Hold *
database_hold_take(Oid database)
{
	Hold	   *hold = database_hold_enter(database);
	int64		deadline = process_ticks() + PATIENCE;
	List	   *pids = NIL;
	long		delay = 1;

	if (hold->db == NULL)
		return hold;
	SpinLockAcquire(&hold->db->mutex);
	hold->db->holds++;
	SpinLockRelease(&hold->db->mutex);
	hold->keeps_out = true;

	for (;;)
	{
		bool		found;

		pids = database_hold_end_processes(hold->db, pids, &found);
		if ((!found && !database_hold_any_there(pids, database)) || process_ticks() >= deadline)
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 delay, compat_wait_event("TaskshedHoldDatabase"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		delay = Min(2 * delay, MAX_LOOK_DELAY);
	}
	list_free(pids);
	return hold;
}

/*
 * Hold a database that is about to be dropped.  Comes after the server's check
 * of privileges, and before it looks who is connected.
 */
void
database_hold_for_drop(Oid database)
{
	if (database != MyDatabaseId)
		database_hold_take(database)->dropped = true;
}

/* Have a scheduler look into a database when this transaction commits. */
void
database_hold_look_into(Oid database)
{
	database_hold_enter(database)->opened = true;
}

/* Return whether the user may create databases. */
static bool
database_hold_may_create(void)
{
	HeapTuple	tuple;
	bool		may = superuser();

	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(tuple))
	{
		may = may || ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return may;
}

/*
 * Find an option of a command that deals with a database.  Return NULL if it is
 * not given.
 */
static const DefElem *
database_hold_option(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		const DefElem *option = lfirst(lc);

		if (strcmp(option->defname, name) == 0)
			return option;
	}
	return NULL;
}

/*
 * Return whether such an option is given, with that value.  DEFAULT means what
 * the server has for it.
 */
static bool
database_hold_option_is(List *options, const char *name, bool value, bool default_value)
{
	const DefElem *option = database_hold_option(options, name);

	if (option == NULL)
		return false;
	if (option->arg == NULL)
		return default_value == value;
	return defGetBoolean(unconstify(DefElem *, option)) == value;
}

/*
 * Hold the database that a statement must have alone, if the user may do that.
 * It is about to be executed, and the server has not checked it yet.
 */
void
database_hold_for_statement(const Node *statement)
{
	const char *name = NULL;
	bool		may = true;
	bool		own = false;	/* may it be the one that we are in? */
	bool		closes = true;
	bool		shuts = false;	/* for good */
	bool		opens = false;
	Oid			database;

	/* which database, what becomes of it, and may the user do that? */
	if (IsA(statement, RenameStmt) && ((const RenameStmt *) statement)->renameType == OBJECT_DATABASE)
	{
		name = ((const RenameStmt *) statement)->subname;
		may = database_hold_may_create();
	}
	else if (IsA(statement, CreatedbStmt))
	{
		const DefElem *option = database_hold_option(((const CreatedbStmt *) statement)->options, "template");

		name = option != NULL && option->arg != NULL ?
			defGetString(unconstify(DefElem *, option)) : "template1";
		may = database_hold_may_create();
		own = true;
	}
	else if (IsA(statement, AlterDatabaseStmt))
	{
		const AlterDatabaseStmt *alter = (const AlterDatabaseStmt *) statement;

		shuts = database_hold_option_is(alter->options, "allow_connections", false, true) ||
			database_hold_option_is(alter->options, "is_template", true, false);
		own = shuts;
		closes = shuts || database_hold_option(alter->options, "tablespace") != NULL;
		opens = !shuts && (database_hold_option_is(alter->options, "allow_connections", true, true) ||
						   database_hold_option_is(alter->options, "is_template", false, false));
		if (closes || opens)
			name = alter->dbname;
	}
	if (name == NULL || !may)
		return;

	/* hold it */
	database = get_database_oid(name, true);
	if (!OidIsValid(database) || !compat_owns_database(database, GetUserId()))
		return;
	if (closes && (own || database != MyDatabaseId))
		database_hold_take(database)->closed = shuts;
	if (opens)
		database_hold_look_into(database);
}
