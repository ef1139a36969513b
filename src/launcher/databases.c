/*-------------------------------------------------------------------------
 *
 * databases.c
 *		Which databases the launcher serves.
 *
 * When the server is up it has a scheduler look into each database that can be
 * connected to, a few at a time; one that does not find the extension leaves,
 * and is not started there again until a transaction in that database asks for
 * it.  The same is done when somebody asks to look around, who knows that
 * databases were opened or closed and not which.  Those that are open no longer
 * are rid of our processes then.
 *
 * All of this is the launcher's own; only it calls these functions.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "launcher/launcher.h"

/*
 * Databases looked into at the same time after start.  One that takes longer than
 * PROBE_TIME (us), since it is locked, on hold or broken, keeps no other waiting.
 */
#define PROBES				3
#define PROBE_TIME			USECS_PER_SEC

/*
 * Databases that remain to be looked into, and since when (process_ticks) others
 * are being, by entries; 0: they are not.
 */
static List *unprobed = NIL;
static int64 *probing;

/* Databases that are to have no process of ours, and those told to leave, by entries. */
static bool *clearing;
static List **told;

/* Those that there is no entry for were mentioned in the log. */
static bool complained = false;

/*
 * List the databases that can have a scheduler: those that can be connected to
 * and are no templates, which must be free of sessions to be copied.  (One
 * whose DROP was cut off cannot.)
 */
static List *
databases_list(void)
{
	List	   *databases = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		if (form->datallowconn && !form->datistemplate &&
			form->datconnlimit != DATCONNLIMIT_INVALID_DB)
		{
			MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

			databases = lappend_oid(databases, form->oid);
			MemoryContextSwitchTo(old);
		}
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	return databases;
}

/*
 * Say once that there is no entry for the databases that remain to be looked
 * into: all are taken by others that have tasks.  They are looked into when
 * entries become free.
 */
static void
databases_complain_unprobed(void)
{
	if (complained)
		return;
	complained = true;
	ereport(WARNING,
			(errmsg("taskshed serves at most %d databases of a server", TS_MAX_DATABASES),
			 errdetail("Tasks in %d other databases, if there are any, do not run; the first of these has the OID %u.",
					   list_length(unprobed), linitial_oid(unprobed)),
			 errhint("Drop the extension, or the tasks, in databases that do not need them.")));
}

/*
 * Stop ending our processes in a database: it is free of them, or may have them
 * again.
 */
void
databases_stop_clearing(int i)
{
	clearing[i] = false;
	list_free(told[i]);
	told[i] = NIL;
}

/* Begin to end our processes in the databases that are none of these any more. */
static void
databases_list_closed(List *databases)
{
	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		Oid			database = database_oid(&ts_shared->databases[i]);

		if (OidIsValid(database) && !list_member_oid(databases, database))
			clearing[i] = true;
	}
}

/*
 * Go on to end our processes in databases that were closed while they were
 * there: by COMMIT PREPARED, or by hand.  Each wakes us when it has left, and
 * the next step is taken.
 */
void
databases_clear_closed(void)
{
	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		MemoryContext old;
		bool		found;

		if (!clearing[i])
			continue;
		old = MemoryContextSwitchTo(TopMemoryContext);
		told[i] = database_hold_end_processes(&ts_shared->databases[i], told[i], &found);
		MemoryContextSwitchTo(old);
		if (!found)
			databases_stop_clearing(i);
	}
}

/*
 * Count the databases that are being looked into, and find out how long (us)
 * that may go on.  One that waits for a place in max_worker_processes has all
 * its time still.
 */
static int
databases_count_probes(int64 *left)
{
	int64		now = process_ticks();
	int			n = 0;
	bool		crowded;

	SpinLockAcquire(&ts_shared->mutex);
	crowded = ts_shared->crowded;
	SpinLockRelease(&ts_shared->mutex);
	*left = PROBE_TIME;
	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];

		SpinLockAcquire(&db->mutex);
		if (db->state != TS_DB_WANTED && db->state != TS_DB_STARTING)
			probing[i] = 0;
		if (probing[i] != 0 && crowded && db->state == TS_DB_WANTED &&
			db->holds == 0 && db->bad_starts == 0)
			probing[i] = now;
		SpinLockRelease(&db->mutex);
		if (probing[i] == 0 || now - probing[i] >= PROBE_TIME)
			continue;
		n++;
		*left = Min(*left, probing[i] + PROBE_TIME - now);
	}
	return n;
}

/*
 * Have schedulers look into a few more of the databases that were there at
 * start, or when somebody had asked for it last.  Return when to go on with
 * that, in ms, if nothing happens before; -1: never.
 */
long
databases_probe(void)
{
	int			starting;
	int64		left;
	bool		look_around;

	/* begin anew if that was asked for */
	SpinLockAcquire(&ts_shared->mutex);
	look_around = ts_shared->look_around;
	ts_shared->look_around = false;
	if (look_around)
		ts_shared->probed = false;
	SpinLockRelease(&ts_shared->mutex);
	if (look_around)
	{
		list_free(unprobed);
		unprobed = databases_list();
		databases_list_closed(unprobed);
	}

	/* have a few looked into at a time */
	if (unprobed == NIL)
		return -1;
	starting = databases_count_probes(&left);
	while (unprobed != NIL && starting < PROBES)
	{
		TsDatabase *db = database_try_reserve(linitial_oid(unprobed));
		bool		begins;

		if (db == NULL)
		{
			databases_complain_unprobed();
			return -1;
		}
		unprobed = list_delete_first(unprobed);
		database_want_scheduler(db);
		SpinLockAcquire(&db->mutex);
		begins = (db->state == TS_DB_WANTED || db->state == TS_DB_STARTING);
		SpinLockRelease(&db->mutex);
		if (begins)				/* else it has one, or sleeps */
		{
			probing[db - ts_shared->databases] = process_ticks();
			starting++;
		}
		database_release(db);
	}
	/* go on in a while, or say that it is done */
	if (unprobed != NIL)
		return (long) (left / 1000 + 1);
	SpinLockAcquire(&ts_shared->mutex);
	ts_shared->probed = true;
	SpinLockRelease(&ts_shared->mutex);
	return -1;
}

/*
 * Return whether a database can have a scheduler.  One that has been dropped or
 * closed since it was asked for is forgotten, unless it was opened again while
 * we looked.
 */
bool
databases_may_serve(TsDatabase *db)
{
	List	   *databases;
	bool		may;

	SpinLockAcquire(&db->mutex);
	db->wanted_again = false;
	SpinLockRelease(&db->mutex);
	databases = databases_list();
	may = list_member_oid(databases, db->oid);
	list_free(databases);
	if (!may)
	{
		SpinLockAcquire(&db->mutex);
		if (db->state == TS_DB_WANTED && !db->wanted_again)
			database_set_state(db, TS_DB_IDLE);
		SpinLockRelease(&db->mutex);
		if (unprobed != NIL)
			SetLatch(MyLatch);	/* there may be an entry for another now */
	}
	return may;
}

/* Prepare, once, for a launcher that has just come. */
void
databases_init(void)
{
	bool		probed;

	probing = MemoryContextAllocZero(TopMemoryContext, TS_MAX_DATABASES * sizeof(int64));
	clearing = MemoryContextAllocZero(TopMemoryContext, TS_MAX_DATABASES * sizeof(bool));
	told = MemoryContextAllocZero(TopMemoryContext, TS_MAX_DATABASES * sizeof(List *));
	SpinLockAcquire(&ts_shared->mutex);
	probed = ts_shared->probed;
	SpinLockRelease(&ts_shared->mutex);
	if (!probed)
		shared_look_around();
}
