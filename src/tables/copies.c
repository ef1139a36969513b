/*-------------------------------------------------------------------------
 *
 * copies.c
 *		Whether the tasks of a database may run in it.
 *
 * A database that was made as a copy of another, by CREATE DATABASE ... TEMPLATE
 * or from a dump, has its tasks, too, and nobody wants invoices to be sent
 * twice.  So _taskshed.home says for which database its tasks were meant: it has
 * a row with the database's OID, which no dump contains.  Tasks in a database
 * that is not at home there came with a copy, and are held until its owner
 * calls activate().
 *
 *		the database's own OID		its tasks run; also after pg_upgrade and on
 *									a standby that was promoted, which keep it
 *		own OID, but "restored"		rows were written by others than us, as
 *									restoring a dump does: held
 *		another OID					a copy made with TEMPLATE: held
 *		no row, but tasks			restored while triggers were disabled: held
 *		no tasks, no aliases		whoever adds the first one writes the row
 *
 * The row is not written when the extension is created, since restoring a dump
 * begins with that.  Two first calls that do not see each other may both write
 * it, which does no harm, and neither has to wait.
 *
 * Not noticed is a restore that overlaps with a first call, or into a database
 * that has had tasks of its own.
 *
 * The same trigger that notices a restore keeps rows out that logical
 * replication brings: they are the publisher's, and run there.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "tables/tables.h"

/* What the table says. */
typedef struct HomeRows
{
	bool		here;			/* tasks are at home in this database */
	bool		restored_here;	/* or were restored in it */
	bool		restored;		/* here or where it was copied from */
	List	   *origins;		/* other databases' OIDs */
	TransactionId writer;		/* that has written that they are at home */
} HomeRows;

/* The tasks were found to be at home, by a row that is there to stay. */
static bool settled = false;
static bool unchanged;			/* since we began to look */
static Oid	settled_relid = InvalidOid; /* in that table */

/* Or by one that this transaction, or subtransaction, has written. */
static TransactionId written_by = InvalidTransactionId;

/*
 * Look again where the tasks are at home if a relation, or any, has changed, as
 * the relcache has been told.
 */
void
copies_relation_changed(Oid relid)
{
	if (relid == InvalidOid || relid == settled_relid)
	{
		settled = false;
		unchanged = false;
		written_by = InvalidTransactionId;
	}
}

/* Return whether a table has any row that is seen by a registered snapshot. */
static bool
copies_has_rows(Relation rel, Snapshot snapshot)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = compat_table_beginscan(rel, SnapshotAny);
	bool		found = false;

	while (!found && table_scan_getnextslot(scan, ForwardScanDirection, slot))
		found = store_sees(snapshot, slot);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return found;
}

/*
 * Return whether there are no tasks and no aliases.  (The table of the latter
 * is not the store's.)
 */
static bool
copies_is_empty(Store *store, Snapshot snapshot)
{
	Oid			relid = store_relid("callback");
	Relation	aliases;
	bool		empty;

	if (copies_has_rows(store->task, snapshot) || copies_has_rows(store->alarm, snapshot))
		return false;
	aliases = OidIsValid(relid) ? try_table_open(relid, AccessShareLock) : NULL;
	if (aliases == NULL)
		return true;
	empty = !copies_has_rows(aliases, snapshot);
	table_close(aliases, AccessShareLock);
	return empty;
}

/*
 * Read the table by a registered snapshot.  Delete all of it as well, if its
 * lock is strong enough for that.
 */
static HomeRows
copies_read(Relation rel, Snapshot snapshot, bool delete)
{
	HomeRows	rows = {0};
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = compat_table_beginscan(rel, SnapshotAny);

	Assert(!delete || CheckRelationLockedByMe(rel, ShareRowExclusiveLock, true));
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		Oid			database;
		bool		restored;

		if (!store_sees(snapshot, slot))
			continue;
		database = DatumGetObjectId(slot_getattr(slot, Anum_home_database, &isnull));
		restored = DatumGetBool(slot_getattr(slot, Anum_home_restored, &isnull));
		rows.restored |= restored;
		if (database != MyDatabaseId)
			rows.origins = list_append_unique_oid(rows.origins, database);
		else if (restored)
			rows.restored_here = true;
		else
		{
			rows.here = true;
			rows.writer = DatumGetTransactionId(slot_getsysattr(slot, MinTransactionIdAttributeNumber,
																&isnull));
		}
		if (delete)
			simple_table_tuple_delete(rel, &slot->tts_tid, SnapshotAny);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return rows;
}

/* Return whether it is known, without a look, that the tasks are at home here. */
bool
copies_is_settled(void)
{
	return settled ||
		(TransactionIdIsValid(written_by) && written_by == GetCurrentTransactionIdIfAny());
}

/*
 * Find out what is to become of the tasks of this database, and where they came
 * from.  HOME_HERE is remembered.  All is seen by one snapshot: the first tasks
 * and the row that says where they are at home are committed together, and
 * nobody may see the one without the other.
 */
HomeState
copies_state(Store *store, HomeOrigin *origin)
{
	Relation	rel;
	HomeRows	rows;
	Snapshot	snapshot;
	bool		empty;

	if (copies_is_settled())
		return HOME_HERE;

	unchanged = true;			/* before the look, which may find a change */
	settled_relid = store_home_relid();
	rel = table_open(settled_relid, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	rows = copies_read(rel, snapshot, false);
	empty = !rows.here && copies_is_empty(store, snapshot);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);

	if (rows.here)
	{
		if (TransactionIdIsCurrentTransactionId(rows.writer))
			written_by = rows.writer;
		else
			settled = unchanged;
		return HOME_HERE;
	}
	if (empty)
		return HOME_EMPTY;
	if (origin != NULL)
	{
		origin->databases = rows.origins;
		origin->known = (rows.restored_here || rows.origins != NIL);
		origin->other_server = (rows.restored || rows.origins == NIL);
	}
	return rows.restored_here || rows.origins == NIL ? HOME_RESTORED : HOME_COPIED;
}

/* Write that tasks are at home here, or were restored here, and nothing else. */
static void
copies_write(bool restored)
{
	Relation	rel = table_open(store_home_relid(), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	HomeRows	rows = copies_read(rel, snapshot, false);
	TupleTableSlot *slot;

	UnregisterSnapshot(snapshot);
	if (rows.here || rows.restored || rows.origins != NIL)
	{
		LockRelation(rel, ShareRowExclusiveLock);
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		(void) copies_read(rel, snapshot, true);
		UnregisterSnapshot(snapshot);
	}
	else
		LockRelation(rel, RowExclusiveLock);
	slot = table_slot_create(rel, NULL);
	ExecClearTuple(slot);
	slot->tts_values[Anum_home_database - 1] = ObjectIdGetDatum(MyDatabaseId);
	slot->tts_isnull[Anum_home_database - 1] = false;
	slot->tts_values[Anum_home_restored - 1] = BoolGetDatum(restored);
	slot->tts_isnull[Anum_home_restored - 1] = false;
	ExecStoreVirtualTuple(slot);
	simple_table_tuple_insert(rel, slot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	CommandCounterIncrement();	/* for the next look, and for one more write */
}

/* Have nobody else decide about tasks that are held, until this transaction ends. */
void
copies_lock(void)
{
	LockRelationOid(store_home_relid(), ShareRowExclusiveLock);
}

/* Have the tasks be at home here from now on. */
void
copies_settle(void)
{
	copies_write(false);
}

/*
 * Prepare for tasks or aliases that are about to be added.  The first ones are
 * at home here.  Where those that are there already came with a copy, the new
 * ones have to wait with them, which is said once a transaction.
 */
void
copies_claim(Store *store)
{
	static TimestampTz warned_in = 0;
	HomeState	state = copies_state(store, NULL);

	if (state == HOME_EMPTY)
		copies_write(false);
	if (!home_is_held(state) || warned_in == GetCurrentTransactionStartTimestamp())
		return;
	warned_in = GetCurrentTransactionStartTimestamp();
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("tasks wait, because the database is a copy"),
			 errdetail_internal("%s", copies_detail(state)),
			 errhint("They run when the owner of the database has called taskshed.activate(), or when all that came with it have been removed.")));
}

const char *
copies_detail(HomeState state)
{
	return state == HOME_COPIED ?
		_("It has tasks of the database that it was copied from.") :
		_("It has tasks that were restored from a dump.");
}

/*
 * Drop the rows that a subscription brings, and remember of other new ones that
 * they were restored.  The trigger BEFORE ROW of our tables, which our own
 * writing does not call: so somebody else writes them.
 */
PG_FUNCTION_INFO_V1(ts_guard);
Datum
ts_guard(PG_FUNCTION_ARGS)
{
	static TransactionId noticed_in = InvalidTransactionId;
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function taskshed._guard() must be called by its trigger")));
	if (IsLogicalWorker())
		return PointerGetDatum(NULL);	/* skips the row */
	/* (a script that updates the extension knows what it does) */
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event) && !creating_extension &&
		(!TransactionIdIsValid(noticed_in) || noticed_in != GetCurrentTransactionIdIfAny()))
	{
		Store	   *store = store_open(AccessShareLock);

		if (copies_state(store, NULL) == HOME_EMPTY)
			copies_write(true);
		store_close(store, AccessShareLock);
		noticed_in = GetCurrentTransactionId();
	}
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
						   trigger->tg_newtuple : trigger->tg_trigtuple);
}

/*
 * Refuse to all but superusers the choice of a database's OID: who chooses it
 * could make a copy the home of the tasks that it has copied.
 */
void
copies_check_statement(const Node *statement)
{
	ListCell   *lc;

	if (!IsA(statement, CreatedbStmt) || superuser())
		return;
	foreach(lc, ((const CreatedbStmt *) statement)->options)
		if (strcmp(lfirst_node(DefElem, lc)->defname, "oid") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to choose the OID of a database"),
				 errdetail("taskshed tells copies of databases by it, so that is for superusers.")));
}
