/*-------------------------------------------------------------------------
 *
 * alias.c
 *		Names that stand for callbacks.
 *
 * An alias belongs to a role and is looked up among the aliases of a task's
 * owner, when the task is scheduled and again at each run, so tasks follow
 * when it is made to stand for another function.  It wins over a function of
 * the same name.  (DROP OWNED and REASSIGN OWNED take aliases along.)
 *
 * Changes of one alias are made one at a time, under a lock of its own until
 * the end of the transaction, so nobody waits for those of other names or of
 * other roles, and nobody meets a row that changes under his eyes.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/relscan.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "callback/callback.h"

enum
{
	Anum_callback_owner = 1,
	Anum_callback_owner_name,
	Anum_callback_name,
	Anum_callback_callback,
	Natts_callback = Anum_callback_callback
};

/* The columns, for table_shape_fits(). */
static const ColumnShape callback_columns[Natts_callback] = {
	{"owner", OIDOID, COLUMN_not_null},
	{"owner_name", NAMEOID, COLUMN_not_null},
	{"name", TEXTOID, COLUMN_not_null},
	{"callback", TEXTOID, COLUMN_not_null}
};

/* The table, found to be as it was made; InvalidOid if it must be looked up. */
static Oid	alias_relid = InvalidOid;

/*
 * Look the table up again if a relation, or any, has changed, as the relcache
 * has been told.
 */
void
alias_relation_changed(Oid relid)
{
	if (relid == InvalidOid || relid == alias_relid)
		alias_relid = InvalidOid;
}

static Relation
alias_open(LOCKMODE lockmode)
{
	Relation	rel = OidIsValid(alias_relid) ? try_relation_open(alias_relid, lockmode) : NULL;

	/*
	 * opening it may have shown that it has changed, or, if that had to wait,
	 * that it was dropped and created again
	 */
	while (rel == NULL || !OidIsValid(alias_relid))
	{
		Oid			relid = store_relid("callback");

		CHECK_FOR_INTERRUPTS();
		if (rel != NULL)
			relation_close(rel, lockmode);
		if (!OidIsValid(relid))
			store_report(ERROR, store_exists() ? STORE_ALTERED : store_state());
		alias_relid = relid;	/* before the look, which may find a change */
		rel = try_relation_open(relid, lockmode);
		if (rel != NULL &&
			!(store_is_member(relid) && table_shape_fits(relid, Natts_callback, callback_columns)))
		{
			alias_relid = InvalidOid;
			store_report(ERROR, STORE_ALTERED);
		}
	}
	return rel;
}

/*
 * Keep others from changing that alias until the end of the transaction.  The
 * lock is one of an object of the table, with the owner instead of the object
 * and a hash of the name instead of a column: if two aliases of a role share
 * it, their changes wait for each other, and that is all.  No other role can
 * find a name to be in the way with.
 */
static void
alias_lock(Relation rel, Oid owner, const char *name)
{
	uint32		hash = hash_bytes((const unsigned char *) name, strlen(name));

	LockDatabaseObject(RelationGetRelid(rel), owner, (uint16) hash, ExclusiveLock);
}

/*
 * Fetch a copy of the alias's row, or NULL.
 *
 * Like the reads of store.c, with SnapshotSelf, which can miss a row while
 * somebody else's update of it commits: it may pass the new version's place
 * before, and the old one's after.  So it is looked for once more with a fresh
 * MVCC snapshot, by hand, before there is said to be none.
 */
static HeapTuple
alias_fetch(Relation rel, Oid owner, const char *name)
{
	Oid			index;
	HeapTuple	tuple = NULL;

	/* where nobody has aliases, nobody is to pay for a search */
	if (RelationGetNumberOfBlocks(rel) == 0)
		return NULL;
	index = get_relname_relid("callback_pkey", RelationGetNamespace(rel));
	for (int attempt = 0; tuple == NULL && attempt < 2; attempt++)
	{
		Snapshot	snapshot = NULL;
		ScanKeyData keys[2];
		SysScanDesc scan;

		/* (inside, for a scan makes them keys of the index) */
		ScanKeyInit(&keys[0], Anum_callback_owner, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(owner));
		ScanKeyEntryInitialize(&keys[1], 0, Anum_callback_name, BTEqualStrategyNumber, InvalidOid,
							   C_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(name));
		if (attempt > 0)
			snapshot = RegisterSnapshot(GetLatestSnapshot());
		scan = systable_beginscan(rel, index, OidIsValid(index),
								  attempt == 0 ? SnapshotSelf : SnapshotAny, 2, keys);
		do
			tuple = systable_getnext(scan);
		while (HeapTupleIsValid(tuple) && attempt > 0 && !store_sees(snapshot, scan->slot));
		if (HeapTupleIsValid(tuple))
			tuple = heap_copytuple(tuple);
		systable_endscan(scan);
		if (attempt > 0)
			UnregisterSnapshot(snapshot);
	}
	return tuple;
}

/* Return what an alias of owner stands for, schema-qualified; NULL if it is none. */
char *
alias_find(Oid owner, const char *name)
{
	Relation	rel = alias_open(AccessShareLock);
	HeapTuple	tuple = alias_fetch(rel, owner, name);
	char	   *target = NULL;

	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;

		target = TextDatumGetCString(heap_getattr(tuple, Anum_callback_callback,
												  RelationGetDescr(rel), &isnull));
	}
	table_close(rel, AccessShareLock);
	return target;
}

/* Return what a name stands for that must be an alias: 42883. */
char *
alias_require(Oid owner, const char *name)
{
	char	   *target = alias_find(owner, name);

	if (target == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("alias \"%s\" does not exist", name),
				 errhint("taskshed.add_callback() defines it again.")));
	return target;
}

/* List the names of all aliases of owner, in order. */
static List *
alias_names(Relation rel, Oid owner)
{
	Oid			index = get_relname_relid("callback_pkey", RelationGetNamespace(rel));
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	List	   *names = NIL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_callback_owner, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(owner));
	scan = systable_beginscan(rel, index, OidIsValid(index), snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;

		names = lappend(names,
						TextDatumGetCString(heap_getattr(tuple, Anum_callback_name,
														 RelationGetDescr(rel), &isnull)));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	return names;
}

/* Call visit for the owner of each alias, and the name that it had. */
void
alias_visit_owners(void (*visit) (Oid owner, const NameData *name, void *arg), void *arg)
{
	Relation	rel = alias_open(AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		isnull;

		visit(DatumGetObjectId(heap_getattr(tuple, Anum_callback_owner, desc, &isnull)),
			  DatumGetName(heap_getattr(tuple, Anum_callback_owner_name, desc, &isnull)), arg);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

/*
 * Give all aliases of a role to another, except names that that one has, and
 * write new_name as its name.  With name, only those that were written when the
 * owner had that; without new_name, what is written stays.  Return how many
 * could not be moved.
 */
int
alias_move(Oid owner, const NameData *name, Oid new_owner, const NameData *new_name)
{
	Relation	rel = alias_open(RowExclusiveLock);
	TupleDesc	desc = RelationGetDescr(rel);
	Datum		values[Natts_callback] = {0};
	bool		nulls[Natts_callback] = {false};
	bool		replaces[Natts_callback] = {false};
	int			left = 0;
	ListCell   *lc;

	values[Anum_callback_owner - 1] = ObjectIdGetDatum(new_owner);
	replaces[Anum_callback_owner - 1] = true;
	if (new_name != NULL)
	{
		values[Anum_callback_owner_name - 1] = NameGetDatum(new_name);
		replaces[Anum_callback_owner_name - 1] = true;
	}

	foreach(lc, alias_names(rel, owner))
	{
		const char *alias = lfirst(lc);
		HeapTuple	old;
		bool		isnull;

		alias_lock(rel, owner, alias);
		alias_lock(rel, new_owner, alias);
		old = alias_fetch(rel, owner, alias);
		if (!HeapTupleIsValid(old) ||
			(name != NULL &&
			 namestrcmp(DatumGetName(heap_getattr(old, Anum_callback_owner_name, desc, &isnull)),
						NameStr(*name)) != 0))
			continue;
		if (HeapTupleIsValid(alias_fetch(rel, new_owner, alias)))
			left++;
		else
			CatalogTupleUpdate(rel, &old->t_self,
							   heap_modify_tuple(old, desc, values, nulls, replaces));
	}
	table_close(rel, NoLock);
	return left;
}

/* Remove all aliases of a role. */
void
alias_drop_owned(Oid owner)
{
	Relation	rel = alias_open(RowExclusiveLock);
	ListCell   *lc;

	foreach(lc, alias_names(rel, owner))
	{
		HeapTuple	old;

		alias_lock(rel, owner, lfirst(lc));
		old = alias_fetch(rel, owner, lfirst(lc));
		if (HeapTupleIsValid(old))
			CatalogTupleDelete(rel, &old->t_self);
	}
	table_close(rel, NoLock);
}

/*
 * Make a name of a role's stand for a target.  Another target is replaced if that
 * is asked for; error otherwise: 42710.
 */
void
alias_set(Oid owner, const char *name, const char *target, bool replace_existing)
{
	NameData	owner_name;
	Datum		values[Natts_callback];
	bool		nulls[Natts_callback] = {false};
	Relation	rel;
	HeapTuple	old;
	HeapTuple	new;

	namestrcpy(&owner_name, GetUserNameFromId(owner, false));
	values[Anum_callback_owner - 1] = ObjectIdGetDatum(owner);
	values[Anum_callback_owner_name - 1] = NameGetDatum(&owner_name);
	values[Anum_callback_name - 1] = CStringGetTextDatum(name);
	values[Anum_callback_callback - 1] = CStringGetTextDatum(target);

	rel = alias_open(RowExclusiveLock);
	alias_lock(rel, owner, name);
	old = alias_fetch(rel, owner, name);
	if (HeapTupleIsValid(old) && !replace_existing)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("callback \"%s\" already exists", name),
				 errhint("With replace_existing => true it is replaced.")));
	new = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	if (HeapTupleIsValid(old))
		CatalogTupleUpdate(rel, &old->t_self, new);
	else
		CatalogTupleInsert(rel, new);
	table_close(rel, NoLock);
}

/* Remove one, and return whether there was one. */
bool
alias_remove(Oid owner, const char *name)
{
	Relation	rel = alias_open(RowExclusiveLock);
	HeapTuple	old;

	alias_lock(rel, owner, name);
	old = alias_fetch(rel, owner, name);
	if (HeapTupleIsValid(old))
		CatalogTupleDelete(rel, &old->t_self);
	table_close(rel, NoLock);
	return HeapTupleIsValid(old);
}
